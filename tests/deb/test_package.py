# SPDX-License-Identifier: GPL-2.0-or-later
"""What tools/deb builds: lintian's opinion, its files, and what Debian's kernels call."""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.deb import archive
from tests.rpm import repository
from tests.vmtest.rootfs import PACKAGES
from tinykdump import __version__

CHECKOUT = repository.REPOSITORY


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return archive.work_tree(tmp_path_factory.mktemp("deb") / "out")


@pytest.fixture(scope="module")
def tree(built: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, unpacked, with its control files in DEBIAN."""
    target = tmp_path_factory.mktemp("tree") / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", archive.binary(built), target], check=True)
    return target


def test_lintian_says_nothing(built: tuple[Path, ...]) -> None:
    (changes,) = (path for path in built if path.suffix == ".changes")
    command = ["lintian", "--fail-on=error,warning,info,override", "--pedantic", str(changes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def digests(built: Iterable[Path]) -> dict[str, str]:
    """Of all but the note about the machine that built them, and the file with its checksum."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in built
        if path.suffix not in (".buildinfo", ".changes")
    }


def test_two_builds_are_equal(tmp_path: Path, short_path: Path) -> None:
    """In another directory, with another umask, elsewhere in the world."""
    clone = repository.clone(short_path / "clone")
    first = digests(archive.build(clone, "HEAD", tmp_path / "first"))
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TZ": "Asia/Tokyo"}
    command = ["sh", "-c", "umask 077; exec tools/deb HEAD somewhere/else"]
    done = subprocess.run(command, cwd=clone, env=environment, check=True, text=True,
                          stdout=subprocess.PIPE)  # fmt: skip
    again = digests(map(Path, done.stdout.splitlines()))
    assert again == first
    assert set(again) == {
        f"tinykdump_{__version__}_all.deb", f"tinykdump_{__version__}.dsc",
        f"tinykdump_{__version__}.tar.xz",
    }  # fmt: skip


def test_all_of_the_program_is_in_it(tree: Path) -> None:
    source = CHECKOUT / "src/tinykdump"
    place = tree / "usr/lib/python3/dist-packages/tinykdump"
    assert {path.relative_to(place) for path in place.rglob("*.py")} == {
        path.relative_to(source) for path in source.rglob("*.py")
    }
    assert (tree / "DEBIAN/conffiles").read_text().split() == [
        "/etc/default/tinykdump", "/etc/kernel/postinst.d/tinykdump",
        "/etc/kernel/postrm.d/tinykdump",
    ]  # fmt: skip
    assert len(list(tree.glob("**/systemd/system/tinykdump.service"))) == 1


def test_an_upgrade_leaves_the_machine_armed(tree: Path) -> None:
    """To stop tinykdump.service is to unload the crash kernel; only a removal does that."""
    scripts = {path.name: path.read_text() for path in (tree / "DEBIAN").glob("p*")}
    assert "stop" not in scripts.get("preinst", "")
    pattern = r'if \[ "\$1" = remove \]; then\n(.*?)\nfi\n'
    on_removal = re.search(pattern, scripts["prerm"], re.DOTALL)
    assert on_removal
    assert scripts["prerm"].count(" stop ") == on_removal[1].count(" stop tinykdump.service ") == 1


def test_it_needs_what_the_guests_have(tree: Path) -> None:
    """What the guests of all tests are made of is enough; rpm's database is not Debian's."""
    control = (tree / "DEBIAN/control").read_text()
    (depends,) = (line for line in control.splitlines() if line.startswith("Depends: "))
    names = {word.split(" ")[0] for word in depends.removeprefix("Depends: ").split(", ")}
    assert names - {"python3:any"} <= set(PACKAGES)


# Debian's kernel packages call the hooks as linux-run-hooks(1) of linux-base does.
@pytest.mark.parametrize(
    ("hook", "parameters", "called"),
    [
        ("postinst", "configure", "add 6.12.9 - /boot/vmlinuz-6.12.9"),
        ("postinst", "configure 6.12.9-1", "add 6.12.9 - /boot/vmlinuz-6.12.9"),
        ("postrm", "remove", "remove 6.12.9 -"),
        ("postrm", "purge", "remove 6.12.9 -"),
        ("postrm", None, "remove 6.12.9 -"),
        ("postrm", "upgrade 6.12.9-2", ""),
        ("postrm", "abort-install", ""),
    ],
)
def test_hooks(tree: Path, tmp_path: Path, hook: str, parameters: str | None, called: str) -> None:
    """They call the plugin's code. If it fails, the kernel's transaction does not."""
    calls = tmp_path / "calls"
    wanted = f"-I -m tinykdump.kernel_install {called}\n" if called else ""
    for status in (0, 1):
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\necho "$*" >{calls}\nexit {status}\n')
        python.chmod(0o755)
        calls.write_text("")
        environment = {} if parameters is None else {"DEB_MAINT_PARAMS": parameters}
        said = run_hook(tree, hook, python, environment)
        assert calls.read_text() == wanted
        assert ("failed" in said) == bool(called and status)


def run_hook(tree: Path, hook: str, python: Path, environment: dict[str, str]) -> str:
    """Run it where that Python is the installed program; what it said."""
    script = (tree / f"etc/kernel/{hook}.d/tinykdump").read_text()
    assert "[ -x /usr/bin/tinykdump ] || exit 0" in script
    script = script.replace("-x /usr/bin/tinykdump", f"-x {python}")
    command = ["sh", "-c", script, "hook", "6.12.9", "/boot/vmlinuz-6.12.9"]
    environment = {"PATH": os.environ["PATH"], "TINYKDUMP_PYTHON": str(python), **environment}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize("hook", ["postinst", "postrm"])
def test_a_hook_of_a_removed_package_does_nothing(tree: Path, tmp_path: Path, hook: str) -> None:
    """dpkg keeps it, as configuration, until the package is purged."""
    assert run_hook(tree, hook, tmp_path / "none", {}) == ""
