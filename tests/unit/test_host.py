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


ASK = "from tinykdump.host import Host; print(Host.given({}).live)"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces")
@pytest.mark.parametrize(
    ("where", "environment", "live"),
    [
        ("", {}, True),
        ("chroot .", {}, False),  # sysfs shows the hardware of the build machine
        ("", {"container": "podman"}, False),
    ],
)
def test_a_chroot_and_a_container_are_not_the_running_machine(
    tmp_path: Path, where: str, environment: dict[str, str], live: bool
) -> None:
    """A shell takes the place of init here."""
    shell = f"""
        for each in /*; do
            if [ -L $each ]; then
                cp -P $each .
            elif [ -d $each ]; then
                mkdir .$each
                mount --rbind $each .$each
            fi
        done
        {where} {sys.executable} -c '{ASK}'
        exit"""
    words = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-ec", shell]
    done = subprocess.run(words, capture_output=True, check=True, text=True, cwd=tmp_path,
                          env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, **environment},
                          )  # fmt: skip
    assert done.stdout == f"{live}\n"
