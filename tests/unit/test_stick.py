# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugged-in sticks: real file systems and the real blkid, with a directory tree as sysfs."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests import plugged
from tests.fakehost import KVER, FakeHost, install_service, make_live
from tests.plugged import MIB
from tinykdump import cli, dumps, hardware, kernel_install, mounts, scriptlets, stick

LABEL = "LABEL=TINYKDUMP"


def wrong(fake: FakeHost, *filesystems: str, target: str = LABEL, dump: int = 0) -> list[str]:
    """The problems of the plugged-in sticks, for an image that mounts ``filesystems``."""
    found = stick.find(fake.host, target)
    return list(map(str, stick.problems(found, target, filesystems or ("vfat",), dump)))


def test_without_a_stick_there_is_no_problem(fake: FakeHost) -> None:
    plugged.plug(fake, "vfat", label="OTHER")
    assert stick.find(fake.host, LABEL) == ()
    assert wrong(fake) == []


@pytest.mark.parametrize("udev", [True, False])
@pytest.mark.parametrize("kind", ["vfat", "exfat", "ext4"])
def test_a_plugged_in_stick_is_found(fake: FakeHost, kind: str, udev: bool) -> None:
    plugged.plug(fake, kind, udev=udev)
    (found,) = stick.find(fake.host, LABEL)
    assert found.free is not None
    assert 30 * MIB < found.free < 64 * MIB
    assert found == stick.Stick(
        Path("/dev/sdb1"), is_usb=True, filesystem=kind, write_protected=False, mounted=None,
        free=found.free,
    )  # fmt: skip
    assert wrong(fake, "exfat", kind) == []


def test_the_stick_is_not_written(fake: FakeHost) -> None:
    image = plugged.plug(fake, "ext4")
    image.chmod(0o400)
    before = image.read_bytes(), image.stat().st_mtime_ns
    wrong(fake)
    assert (image.read_bytes(), image.stat().st_mtime_ns) == before


def test_a_stick_is_found_by_its_uuid(fake: FakeHost) -> None:
    plugged.plug(fake, "vfat")
    uuid = stick.probe(fake.host, Path("/dev/sdb1"))["UUID"]
    assert re.fullmatch("[0-9A-F]{4}-[0-9A-F]{4}", uuid)
    assert len(stick.find(fake.host, f"UUID={uuid}")) == 1
    assert stick.find(fake.host, "UUID=0000-0000") == ()


@pytest.mark.parametrize(
    ("kind", "filesystems"),
    [("exfat", "vfat"), ("vfat", "ext4"), ("ext4", "ext2"), ("ext2", "ext3"), ("ext4", "xfs")],
)
def test_a_file_system_that_the_image_cannot_mount(
    fake: FakeHost, kind: str, filesystems: str
) -> None:
    plugged.plug(fake, kind)
    assert wrong(fake, filesystems) == [
        f"/dev/sdb1 has {kind}, but the crash kernel mounts only {filesystems} (run tinykdump -l, "
        "which adds it if filesystems = auto, or format the stick with tinykdump prepare)"
    ]


def test_ext4_mounts_ext2(fake: FakeHost) -> None:
    plugged.plug(fake, "ext2")
    assert wrong(fake, "vfat", "ext4") == []


def test_an_unknown_file_system(fake: FakeHost) -> None:
    """blkid finds nothing, but udev knows the label."""
    os.truncate(plugged.plug(fake, "vfat"), 0)
    (line,) = wrong(fake)
    assert line.startswith("/dev/sdb1 has an unknown file system, but the crash")


def test_a_disk_that_is_not_behind_usb(fake: FakeHost) -> None:
    """The crash kernel ignores it."""
    plugged.plug(fake, "vfat", "sda1", usb=False)
    assert wrong(fake) == [
        f"/dev/sda1 has {LABEL} but is not a USB device: the crash kernel ignores it (use a USB "
        "stick)"
    ]
    plugged.plug(fake, "vfat", "sdb1")
    assert wrong(fake) == [], "it is no problem beside a stick"


def test_two_sticks(fake: FakeHost) -> None:
    plugged.plug(fake, "vfat", "sdb1")
    plugged.plug(fake, "exfat", "sdc1")
    first, second = wrong(fake)
    assert first == (
        f"/dev/sdb1, /dev/sdc1 all have {LABEL} (unplug all but one: the crash kernel uses "
        "any of them)"
    )
    assert second.startswith("/dev/sdc1 has exfat, ")


def test_a_write_protected_stick(fake: FakeHost) -> None:
    plugged.plug(fake, "vfat")
    fake.write("/sys/class/block/sdb1/ro", "1\n")
    assert wrong(fake) == ["/dev/sdb1 is write-protected (move its switch, or use another stick)"]


@pytest.mark.parametrize("kind", ["vfat", "exfat", "ext4"])
def test_a_stick_with_too_little_space(fake: FakeHost, kind: str) -> None:
    plugged.plug(fake, kind)
    assert wrong(fake, kind, dump=30 * MIB) == []
    (line,) = wrong(fake, kind, dump=200 * MIB)
    assert re.fullmatch(r"/dev/sdb1 has \d\d MiB free, but a dump takes up to 0\.2 GiB "
                        r"\(mount it, which counts old dumps that make room, remove old dumps, "
                        r"or use a larger stick\)", line)  # fmt: skip


def test_a_full_stick(fake: FakeHost) -> None:
    image = plugged.plug(fake, "vfat")
    plugged.fill(image, "old", 62 * MIB)
    (line,) = wrong(fake, dump=30 * MIB)
    assert line.startswith("/dev/sdb1 has 0 MiB free, but a dump takes up to 30 MiB (")


def test_the_space_of_a_mounted_stick_comes_from_its_mount(fake: FakeHost) -> None:
    """Cached data may not be on the stick yet."""
    plugged.plug(fake, "vfat")
    fake.path("/mnt").mkdir()
    fake.write("/proc/self/mountinfo", "30 27 8:17 / /mnt rw - vfat /dev/sdb1 rw\n")
    (found,) = stick.find(fake.host, LABEL)
    assert found.mounted == Path("/mnt")
    held = os.statvfs(fake.path("/mnt"))
    assert found.free is not None
    assert abs(found.free - held.f_bavail * held.f_frsize) < 1 << 30


MIB_OF_FILES = {"20260101T000000Z": 20, "20260102T000000Z": 30, "20260103T000000Z": 40,
                "20260104T000000Z.partial": 5}  # fmt: skip


@pytest.mark.parametrize(("keep", "removable"), [(5, 55), (1, 55), (0, 5)])
def test_old_dumps_make_room(fake: FakeHost, keep: int, removable: int) -> None:
    """As the crash kernel does: not the newest one, nor anything of others."""
    plugged.plug(fake, "vfat")
    fake.write("/proc/self/mountinfo", "30 27 8:17 / /mnt rw - vfat /dev/sdb1 rw\n")
    for machine in (hardware.machine_name(fake.host), "0123456789ab"):
        for name, size in MIB_OF_FILES.items():
            place = f"/mnt/tinykdump/{machine}/{name}"
            fake.write(f"{place}/dmesg.txt.gpg.000", "")
            fake.write(f"{place}/vmcore.flat.gpg.000", "")
            os.truncate(fake.path(f"{place}/vmcore.flat.gpg.000"), size * MIB)
    (found,) = dumps.counted(fake.host, stick.find(fake.host, LABEL), keep)
    assert found.removable == removable * MIB
    full = replace(found, free=10 * MIB)
    (line,) = map(str, stick.problems([full], LABEL, ["vfat"], (11 + removable) * MIB))
    assert line == (
        f"/dev/sdb1 has 10 MiB free and {removable} MiB of old dumps, but a dump takes up to "
        f"{11 + removable} MiB (remove old dumps, or use a larger stick)"
    )
    assert list(stick.problems([full], LABEL, ["vfat"], (10 + removable) * MIB)) == []


@pytest.mark.parametrize(("keep", "small"), [(5, 0), (0, 1)])
def test_status_counts_old_dumps(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    keep: int, small: int,
) -> None:  # fmt: skip
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    monkeypatch.setattr(stick, "_free", lambda *_: 10 * MIB)
    fake.write("/etc/default/tinykdump", f"[dump]\nencrypt = no\nkeep = {keep}\n")
    fake.write("/proc/meminfo", "MemTotal: 900000 kB\nMemFree: 600000 kB\n")
    fake.write("/sys/kernel/kexec_crash_size", str(128 * MIB))
    plugged.plug(fake, "vfat")
    fake.write("/proc/self/mountinfo", "30 27 8:17 / /mnt rw - vfat /dev/sdb1 rw\n")
    for name in ("20260101T000000Z", "20260102T000000Z"):
        place = f"/mnt/tinykdump/{hardware.machine_name(fake.host)}/{name}"
        fake.write(f"{place}/vmcore.flat.gpg.000", "")
        os.truncate(fake.path(f"{place}/vmcore.flat.gpg.000"), 400 * MIB)
    cli.main(["status", "--json"])
    found = json.loads(capfd.readouterr().out)["problems"]
    assert len([each for each in found if "but a dump takes up to" in each]) == small


@pytest.mark.parametrize(("version", "dump"), [("1.7.7", 300), ("1.7.6", 900)])
def test_free_pages_that_are_dumped_take_space(fake: FakeHost, version: str, dump: int) -> None:
    """makedumpfile before 1.7.7 takes them for slabs."""
    said = f"makedumpfile: version {version} (released on 1 Jan 2026)\n"
    fake.write("/usr/bin/makedumpfile", said, 0o755)
    fake.write("/proc/meminfo", f"MemTotal: {900 << 10} kB\nMemFree: {600 << 10} kB\n")
    assert stick.expected_dump(fake.host, 31) == dump * MIB


def test_all_memory_is_dumped_of_a_kernel_that_makedumpfile_cannot_read(fake: FakeHost) -> None:
    fake.write("/usr/bin/makedumpfile", "makedumpfile: version 1.7.9 (released on x)\n", 0o755)
    fake.write("/proc/meminfo", f"MemTotal: {900 << 10} kB\nMemFree: {600 << 10} kB\n")
    fake.write(f"/lib/modules/{KVER}/config", "CONFIG_ARM64_16K_PAGES=y\nCONFIG_ARM64_VA_BITS=52\n")
    assert stick.expected_dump(fake.host, 31) == 900 * MIB
    fake.write(f"/lib/modules/{KVER}/config", "CONFIG_ARM64_64K_PAGES=y\nCONFIG_ARM64_VA_BITS=52\n")
    assert stick.expected_dump(fake.host, 31) == 300 * MIB


def test_a_card_reader_without_a_card(fake: FakeHost) -> None:
    plugged.plug(fake, "vfat", udev=False)
    for name in ("sdb", "sdb1"):
        fake.write(f"/sys/class/block/{name}/size", "0\n")
    assert stick.find(fake.host, LABEL) == ()


def test_a_stick_that_was_unplugged(fake: FakeHost) -> None:
    plugged.plug(fake, "vfat").unlink()
    assert stick.find(fake.host, LABEL) == ()


WAYS: dict[str, Callable[[], int]] = {
    "command": lambda: cli.main(["--load"]),
    "plugin": lambda: kernel_install.main(["add", KVER, "/boot/x"]),
    "package": lambda: scriptlets.main(["install"]),
}


@pytest.mark.parametrize("arm", WAYS.values(), ids=WAYS)
def test_every_way_to_arm_reports_problems_of_the_stick(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    arm: Callable[[], int],
) -> None:  # fmt: skip
    """kexec and the image's programs are simulated: they cannot run in a directory tree."""
    fake.write("/sys/kernel/kexec_crash_size", str(128 * MIB))
    fake.write("/etc/default/tinykdump", "[dump]\nencrypt = no\n")
    fake.write("/proc/meminfo", "MemTotal: 900000 kB\nMemFree: 600000 kB\n")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    make_live(monkeypatch)
    monkeypatch.setattr("tinykdump.image.build._try_programs", lambda _top: None)

    def kexec(*words: str) -> None:
        loads = int(words != ("--unload",))
        fake.write("/sys/kernel/kexec_crash_loaded", str(loads))

    monkeypatch.setattr("tinykdump.load._kexec", kexec)
    install_service(fake)
    plugged.plug(fake, "exfat")
    assert arm() == 0
    file_system, room = capfd.readouterr().err.splitlines()[-2:]
    assert file_system.startswith("tinykdump: /dev/sdb1 has exfat, but the crash kernel mounts on")
    assert room.startswith("tinykdump: /dev/sdb1 has 61 MiB free, but a dump takes up to 0.3 GiB")


MOUNTS = """\
22 27 0:21 / /proc rw,nosuid shared:12 - proc proc rw
27 1 253:2 / / rw,relatime shared:1 - ext4 {root} rw
30 27 8:17 / /mnt rw,relatime shared:2 - vfat /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("/dev/vda2", ("LABEL=system", "UUID=0e1f")),
        ("/dev/mapper/vg-root", ("LABEL=system", "UUID=0e1f")),
        ("overlay", ()),
    ],
)
def test_the_tags_of_the_running_root(fake: FakeHost, root: str, expected: tuple[str, ...]) -> None:
    for device in ("vda2", "sdb1"):
        fake.write(f"/dev/{device}")
    fake.link("/dev/mapper/vg-root", "../vda2")
    for link, device in (("label/system", "vda2"), ("uuid/0e1f", "vda2"),
                         ("label/TINYKDUMP", "sdb1"), ("uuid/12AB-34CD", "sdb1")):  # fmt: skip
        fake.link(f"/dev/disk/by-{link}", f"../../{device}")
    fake.write("/proc/self/mountinfo", MOUNTS.format(root=root))
    assert mounts.root_tags(fake.host) == expected


@pytest.mark.parametrize(
    ("written", "name"), [("/mnt/a\\040b", "/mnt/a b"), ("/mnt/José", "/mnt/José")]
)
def test_mount_points(fake: FakeHost, written: str, name: str) -> None:
    bound = "30 27 8:17 /tinykdump /srv rw - vfat /dev/sdb1 rw\n"
    fake.write("/proc/self/mountinfo", bound + f"31 27 8:17 / {written} rw - vfat /dev/sdb1 rw\n")
    assert mounts.mount_point(fake.host, Path("/dev/sdb1")) == Path(name)
