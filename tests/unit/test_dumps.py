# SPDX-License-Identifier: GPL-2.0-or-later
"""The dumps on sticks that are mounted, and what `tinykdump restore` means by its argument."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinykdump import dump, dumps
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host

ONE, OTHER = "fb0646cb5b56", "0123456789ab"


def stick(place: Path, *names: str) -> Path:
    """A mounted stick with these dumps MACHINE/TIME."""
    for name in names:
        (place / dump.TOP / name).mkdir(parents=True)
    return place


def host_with(root: Path, *sticks: str) -> Host:
    """A host with block devices that are mounted at these places."""
    lines = [f"{30 + number} 1 8:{number} / {place} rw - vfat /dev/sd{number} rw\n"
             for number, place in enumerate(sticks)]  # fmt: skip
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("".join(lines))
    return Host(root)


def test_the_latest_of_all_sticks(tmp_path: Path) -> None:
    """Partial ones do not count, and a number follows the first dump of a second."""
    host = host_with(tmp_path, "/media/a", "/media/b", "/media/empty")
    stick(tmp_path / "media/a", f"{ONE}/20261101T000000Z", f"{ONE}/20261103T000000Z.partial")
    stick(tmp_path / "media/b", f"{OTHER}/20261102T000000Z-2", f"{OTHER}/20261102T000000Z-10",
          f"{OTHER}/20261102T000000Z")  # fmt: skip
    newest = tmp_path / "media/b" / dump.TOP / OTHER / "20261102T000000Z-10"
    assert dumps.named(host, "latest") == newest
    assert [saved.name for saved in dumps.mounted(host)] == [
        "20261101T000000Z", "20261102T000000Z", "20261102T000000Z-2", "20261102T000000Z-10",
        "20261103T000000Z.partial",
    ]  # fmt: skip
    assert {saved.machine for saved in dumps.mounted(host)} == {ONE, OTHER}


@pytest.mark.parametrize("below", ["", dump.TOP, f"{dump.TOP}/{ONE}"])
def test_a_directory_that_has_dumps(tmp_path: Path, below: str) -> None:
    stick(tmp_path, f"{ONE}/20261101T000000Z", f"{ONE}/20261102T000000Z")
    found = dumps.named(Host(tmp_path), str(tmp_path / below))
    assert found.resolve() == tmp_path / dump.TOP / ONE / "20261102T000000Z"


@pytest.mark.parametrize("name", ["20261101T000000Z.partial", "20261101T000000Z", "mine"])
def test_a_dump_itself(tmp_path: Path, name: str) -> None:
    stick(tmp_path, f"{ONE}/{name}", f"{ONE}/20261102T000000Z")
    given = tmp_path / dump.TOP / ONE / name
    assert dumps.named(Host(tmp_path), str(given)) == given


def test_other_names_and_links_are_no_dumps(tmp_path: Path) -> None:
    """Anyone can write to a stick."""
    top = stick(tmp_path / "stick", f"{ONE}/20261101T000000Z", f"{ONE}/x",
                "x\x1b[2J/20261105T000000Z") / dump.TOP  # fmt: skip
    (top / OTHER).symlink_to(top / ONE)
    (top / ONE / "20261104T000000Z").symlink_to(top / ONE / "20261101T000000Z")
    (top / ONE / "20261103T000000Z").write_text("a file")
    os.mkfifo(top / "0123456789ac")
    assert [saved.directory.relative_to(top) for saved in dumps.on(tmp_path / "stick")] == [
        Path(ONE) / "20261101T000000Z"
    ]
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / dump.TOP).symlink_to(top)
    assert dumps.on(tmp_path / "link") == ()


def test_nothing(tmp_path: Path) -> None:
    host = host_with(tmp_path, "/media/a")
    stick(tmp_path / "media/a", f"{ONE}/20261101T000000Z.partial")
    for what, where in (("latest", "the sticks that are mounted"),
                        (str(tmp_path / "media/a"), str(tmp_path / "media/a"))):  # fmt: skip
        with pytest.raises(TinykdumpError, match=f"no complete dump on {where} "):
            dumps.named(host, what)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    """A real block device with a file system."""
    if os.geteuid() != 0:
        pytest.skip("only root makes loop devices")
    image = tmp_path / "image"
    subprocess.run(["truncate", "--size=8M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-L", "TINYKDUMP", image], check=True, capture_output=True)
    made = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True,
                          text=True).stdout.strip()  # fmt: skip
    yield Path(made)
    subprocess.run(["losetup", "--detach", made], check=True)


def test_a_device(loop: Path, tmp_path: Path) -> None:
    """A real one; unmounted, the error says how to mount it."""
    host = Host(Path("/"))
    with pytest.raises(TinykdumpError, match=f"{loop} is not mounted .*mount -o ro.* {loop} /mnt"):
        dumps.named(host, str(loop))
    place = tmp_path / "mount point"
    place.mkdir()
    subprocess.run(["mount", loop, place], check=True)
    try:
        stick(place, f"{ONE}/20261101T000000Z")
        assert dumps.named(host, str(loop)) == place / dump.TOP / ONE / "20261101T000000Z"
    finally:
        subprocess.run(["umount", place], check=True)
