# SPDX-License-Identifier: GPL-2.0-or-later
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakehost import SOURCE, FakeHost
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/etc/real", "/etc/real"),  # absolute: stays below the tree
        ("real", "/etc/real"),
        ("../etc/real", "/etc/real"),
        ("../../../../etc/real", "/etc/real"),
        ("missing", None),
        ("link", None),  # to itself
        ("real/below", None),
    ],
)
def test_links_are_followed_below_the_tree(
    tmp_path: Path, target: str, expected: str | None
) -> None:
    fake = FakeHost(tmp_path)
    fake.write("/etc/real", "text\n")
    fake.link("/etc/link", target)
    found = fake.host.resolve("/etc/link")
    assert found == (Path(expected) if expected else None)
    assert fake.host.exists("/etc/link") is (expected is not None)
    assert fake.host.text("/etc/link") == ("text" if expected else None)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TinykdumpError, match=r"^/x: No such file or directory \(check"):
        FakeHost(tmp_path).host.read("/x")


def test_whether_a_host_is_the_running_machine_is_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory tree never is. The answer for a Host does not change."""
    asked: list[bool] = []

    def ask() -> bool:
        asked.append(True)
        return True

    monkeypatch.setattr("tinykdump.host._is_live", ask)
    assert not Host.given({"TINYKDUMP_ROOT": str(tmp_path)}).live
    assert asked == []
    host = Host.given({})
    assert (host.root, host.live, host.live, asked) == (Path("/"), True, True, [True])


def test_a_kernel_without_pid_namespaces_has_no_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulated, because the machine that runs this test may itself be a container."""
    root = Path("/").stat()

    def stat(path: Path) -> os.stat_result:
        if str(path) == "/proc/self/ns/pid":
            raise FileNotFoundError
        return root

    monkeypatch.setattr(Path, "stat", stat)
    assert Host.given({}).live


ASK = "from tinykdump.host import Host; print(Host.given({}).live)"


def ask(*words: str) -> str:
    """What it says when it is run by such a program."""
    argv = [*words, sys.executable, "-c", ASK]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE}
    done = subprocess.run(argv, capture_output=True, check=True, text=True, env=environment)
    return done.stdout.strip()


# As rpm-ostree starts scriptlets (rpmostree-bwrap.cxx, scripts/bwrap-script-shell.sh there): the
# root of the first process is the same, the hardware is that of the machine.
RPM_OSTREE = (
    "bwrap", "--dev", "/dev", "--proc", "/proc",
    "--dir", "/tmp", "--dir", "/run", "--chdir", "/",  # noqa: S108 - in the sandbox
    "--unshare-pid", "--unshare-uts", "--unshare-ipc", "--unshare-cgroup-try", "--unshare-net",
)  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces")
def test_not_in_the_sandbox_of_rpm_ostree() -> None:
    links = [each for each in Path("/").iterdir() if each.is_symlink()]
    others = [each for each in Path("/").iterdir() if each.is_dir() and str(each) not in RPM_OSTREE]
    words = [word for each in links for word in ("--symlink", str(each.readlink()), str(each))]
    for each in set(others) - set(links):
        words += ["--ro-bind", str(each), str(each)]
    # This checkout can be in a directory that the sandbox hides.
    words += [word for each in (SOURCE, sys.prefix) for word in ("--ro-bind", each, each)]
    assert ask(*RPM_OSTREE, *words) == "False"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces")
def test_not_in_a_container() -> None:
    """Such as one that an image is built in. That a machine is one, tests/vm shows."""
    assert ask("unshare", "--mount", "--pid", "--fork", "--mount-proc") == "False"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces")
def test_not_in_a_chroot(tmp_path: Path) -> None:
    """Where /proc shows the machine's own processes, as in mock(1) and in an installer."""
    script = """for each in /*; do
        if [ -L $each ]; then cp -P $each .
        elif [ -d $each ]; then mkdir .$each; mount --rbind $each .$each
        fi
    done
    exec chroot . "$@" """
    words = ("env", f"--chdir={tmp_path}", "unshare", "--mount", "sh", "-ec", script, "sh")
    assert ask(*words) == "False"
