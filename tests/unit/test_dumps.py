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
    """A host with USB disks that are mounted at these places."""
    lines = [f"{30 + number} 1 8:{number} / {place} rw - vfat /dev/sd{number} rw\n"
             for number, place in enumerate(sticks)]  # fmt: skip
    classes = root / "sys/class/block"
    classes.mkdir(parents=True)
    for number in range(len(sticks)):
        disk = root / f"sys/devices/pci0000:00/usb1/1-{number}/block/sd{number}"
        disk.mkdir(parents=True)
        (disk / "size").write_text("1\n")
        (disk / "uevent").write_text(f"DEVNAME=sd{number}\n")
        (classes / f"sd{number}").symlink_to(os.path.relpath(disk, classes))
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


def test_only_a_stick_counts(tmp_path: Path) -> None:
    """All users can write to /tmp, which can be a file system of its own."""
    host = host_with(tmp_path, "/media/a")
    stick(tmp_path / "media/a", f"{ONE}/20261101T000000Z")
    stick(tmp_path / "tmp", f"{OTHER}/99981231T235959Z")
    with (tmp_path / "proc/self/mountinfo").open("a") as table:
        table.write("90 1 8:90 / /tmp rw - ext4 /dev/nvme0n1p3 rw\n")
    assert dumps.named(host, "latest").name == "20261101T000000Z"


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
    """A real one, which is mounted."""
    place = tmp_path / "mount point"
    place.mkdir()
    subprocess.run(["mount", loop, place], check=True)
    try:
        stick(place, f"{ONE}/20261101T000000Z")
        with dumps.opened(Host(Path("/")), str(loop)) as found:
            assert found == place / dump.TOP / ONE / "20261101T000000Z"
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def unmounted(loop: Path, tmp_path: Path) -> Path:
    """A device with a dump on it."""
    place = tmp_path / "mount point"
    place.mkdir()
    subprocess.run(["mount", loop, place], check=True)
    stick(place, f"{ONE}/20261101T000000Z", f"{ONE}/20261102T000000Z.partial")
    subprocess.run(["umount", place], check=True)
    return loop


def test_a_device_that_is_not_mounted(unmounted: Path, monkeypatch: pytest.MonkeyPatch,
                                      short_path: Path) -> None:  # fmt: skip
    """It is mounted read-only for the time being, and not a byte of it changes."""
    monkeypatch.setattr("tinykdump.state.RUNTIME", short_path / "run")
    before = unmounted.read_bytes()
    with dumps.opened(Host(Path("/")), str(unmounted)) as found:
        assert found.relative_to(short_path / "run").parts[1:] == (
            dump.TOP, ONE, "20261101T000000Z",
        )  # fmt: skip
        assert (short_path / "run").stat().st_mode & 0o777 == 0o700
        assert os.statvfs(found).f_flag & os.ST_RDONLY
        with pytest.raises(OSError, match="Read-only file system"):
            (found / "x").touch()
    assert list((short_path / "run").iterdir()) == []
    assert unmounted.read_bytes() == before


def test_a_device_that_another_user_cannot_mount(
    unmounted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with (
        pytest.raises(TinykdumpError, match=f"^{unmounted} is not mounted .run .* as root, or mou"),
        dumps.opened(Host(Path("/")), str(unmounted)),
    ):
        pass


def test_a_device_without_a_file_system_for_dumps(loop: Path) -> None:
    subprocess.run(["mkswap", loop], check=True, capture_output=True)
    with (
        pytest.raises(TinykdumpError, match=f"^{loop} has no file system of vfat, .* .name the p"),
        dumps.opened(Host(Path("/")), str(loop)),
    ):
        pass


def test_a_device_whose_file_system_is_damaged(
    unmounted: Path, monkeypatch: pytest.MonkeyPatch, short_path: Path
) -> None:
    """Only what blkid reads is intact. mount says why in its last line but one."""
    monkeypatch.setattr("tinykdump.state.RUNTIME", short_path / "run")
    with unmounted.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (1 << 20))
    with (
        pytest.raises(TinykdumpError, match=r"^mount failed: mount: .*/stick-.*: .* .check the "),
        dumps.opened(Host(Path("/")), str(unmounted)),
    ):
        pass
    assert list((short_path / "run").iterdir()) == []


def test_a_disk_with_partitions(loop: Path, tmp_path: Path) -> None:
    """The partition with a file system is mounted. It is an image: loop devices here have none."""
    subprocess.run(["wipefs", "--quiet", "--all", loop], check=True)
    root = tmp_path / "root"
    (root / "dev").mkdir(parents=True)
    (root / "dev" / loop.name).symlink_to(loop)
    number = loop.stat().st_rdev
    disk = root / f"sys/dev/block/{os.major(number)}:{os.minor(number)}"
    tree = stick(tmp_path / "stick", f"{ONE}/20261101T000000Z")
    for name, make in (("p1", ["mkswap"]), ("p2", ["mkfs.ext4", "-q", "-d", tree])):
        (disk / name / "partition").mkdir(parents=True)
        part = root / "dev" / name
        subprocess.run(["truncate", "--size=4M", part], check=True)
        subprocess.run([*make, part], check=True, capture_output=True)
    with dumps.opened(Host(root), str(loop)) as found:
        assert found.parent.name == ONE
        assert os.statvfs(found).f_flag & os.ST_RDONLY
