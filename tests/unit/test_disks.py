# SPDX-License-Identifier: GPL-2.0-or-later
"""Which disk can become a stick, by what lsblk says of a real machine, and of worse ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinykdump import disks
from tinykdump.disks import Disk
from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import FILESYSTEMS, MADE

# What lsblk and blkid said in a guest without udev that had five USB sticks: sda1 is mounted, sdb1
# is swap space, sdc is write-protected, sdd1 is encrypted, sde is empty.
_RECORDED = json.loads((Path(__file__).parents[1] / "records/lsblk.json").read_text())
RECORD = json.dumps(_RECORDED["lsblk"]).encode()
TAGS = {Path(device): tags for device, tags in _RECORDED["blkid"].items()}
USB = {Path(f"/dev/sd{letter}{part}") for letter in "abcde" for part in ("", "1")}
GIB = 1 << 30


def device(path: str, kind: str = "disk", **changes: Any) -> dict[str, Any]:
    """What lsblk says of a device."""
    usual = {"name": path, "path": path, "type": kind, "size": 4 * GIB, "ro": False,
             "vendor": None, "model": None, "fstype": None, "label": None,
             "mountpoints": [None]}  # fmt: skip
    return usual | changes


def parsed(*devices: dict[str, Any]) -> tuple[Disk, ...]:
    return disks.parse(json.dumps({"blockdevices": devices}).encode(), {})


def test_a_real_machine() -> None:
    found = {str(disk.path): disk for disk in disks.parse(RECORD, TAGS)}
    assert set(found) == {"/dev/vda", "/dev/sda", "/dev/sdb", "/dev/sdc", "/dev/sdd", "/dev/sde"}
    (part,) = found["/dev/sda"].parts
    assert (part.filesystem, part.label, part.mounted) == ("vfat", "TINYKDUMP", ("/mnt",))
    assert found["/dev/sda"].size == 300 << 20
    assert found["/dev/sda"].name == "QEMU QEMU HARDDISK"
    assert found["/dev/vda"].mounted == ("/",)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/dev/vda", "/dev/vda is not a disk behind USB (name another disk; "),
        ("/dev/vdz", "/dev/vdz is not a disk (name another disk; "),
        ("/dev/sda", "/dev/sda1 is mounted on /mnt (umount /dev/sda1 first)"),
        ("/dev/sda1", "/dev/sda1 is mounted on /mnt (umount /dev/sda1 first)"),
        ("/dev/sdb", "/dev/sdb1 is in use as swap space (name another disk; "),
        ("/dev/sdc", "/dev/sdc is write-protected (move its switch, or use another stick)"),
        ("/dev/sdd", "/dev/sdd1 is an encrypted disk (name another disk, or remove that first "),
    ],
)
def test_what_is_refused_on_it(path: str, says: str) -> None:
    with pytest.raises(TinykdumpError) as refused:
        disks.chosen(disks.parse(RECORD, TAGS), Path(path), USB)
    assert str(refused.value).startswith(says)


def test_what_is_taken_on_it() -> None:
    disk = disks.chosen(disks.parse(RECORD, TAGS), Path("/dev/sde"), USB)
    disks.whole(disk)
    assert disk.path == Path("/dev/sde")


IN_USE = {
    "a volume group": device("/dev/sda", fstype="LVM2_member", children=[
        device("/dev/mapper/vg-root", "lvm", fstype="ext4", mountpoints=["/"])]),
    "a RAID": device("/dev/sda", children=[
        device("/dev/sda1", "part", fstype="linux_raid_member", children=[
            device("/dev/md0", "raid1", fstype="ext4", mountpoints=["/"])])]),
    "an open encrypted disk": device("/dev/sda", children=[
        device("/dev/sda1", "part", fstype="crypto_LUKS", children=[
            device("/dev/mapper/home", "crypt", fstype="ext4")])]),
    "a multipath": device("/dev/sda", children=[device("/dev/mapper/mpatha", "mpath")]),
    "swap space that is not in use": device("/dev/sda", fstype="swap"),
    "a DVD": device("/dev/sda", "rom"),
    "the root": device("/dev/sda", children=[device("/dev/sda2", "part", mountpoints=["/"])]),
}  # fmt: skip


@pytest.mark.parametrize("case", IN_USE.values(), ids=IN_USE)
def test_what_belongs_to_more_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(TinykdumpError):
        disks.chosen(parsed(case), Path("/dev/sda"), {Path("/dev/sda")})


def test_only_what_sysfs_says_is_behind_usb() -> None:
    """A part that is, of a disk that is not, is no part of a stick."""
    found = parsed(device("/dev/sda", children=[device("/dev/sda1", "part", fstype="vfat")]))
    with pytest.raises(TinykdumpError, match="not a disk behind USB"):
        disks.chosen(found, Path("/dev/sda1"), {Path("/dev/sda1")})


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"kind": "part"}, "is a part of a disk"), ({"size": 1 << 20}, "has only 1 MiB")],
)
def test_what_is_not_partitioned(changes: dict[str, Any], says: str) -> None:
    (disk,) = parsed(device("/dev/sda", **changes))
    with pytest.raises(TinykdumpError, match=says):
        disks.whole(disk)


@pytest.mark.parametrize(
    ("size", "usable", "kind"),
    [
        (16 * GIB, MADE, "vfat"), (64 * GIB, MADE, "exfat"), (64 * GIB, ("vfat",), "vfat"),
        (16 * GIB, ("exfat", "ext4"), "exfat"), (64 * GIB, ("xfs", "ext4"), "ext4"),
    ],
)  # fmt: skip
def test_the_default_file_system(size: int, usable: tuple[str, ...], kind: str) -> None:
    assert disks.default_filesystem(size, usable) == kind


def test_partition_tables() -> None:
    assert disks.table(4 * GIB, "vfat") == "label: dos\nstart=1MiB, type=c\n"
    assert disks.table(4 * GIB, "exfat") == "label: dos\nstart=1MiB, type=7\n"
    large = disks.table(3 << 40, "ext4")
    assert large.startswith("label: gpt\n")
    assert large.endswith("type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\n")


def test_the_file_system_that_stays() -> None:
    parts = [device("/dev/sda1", "part", fstype="vfat"), device("/dev/sda2", "part")]
    (one,) = parsed(device("/dev/sda", children=parts))
    assert disks.only_filesystem(one).path == Path("/dev/sda1")
    (whole,) = parsed(device("/dev/sda", fstype="exfat"))
    assert disks.only_filesystem(whole) == whole
    (none,) = parsed(device("/dev/sda"))
    with pytest.raises(TinykdumpError, match="has no file systems"):
        disks.only_filesystem(none)
    parts[1]["fstype"] = "ext4"
    (two,) = parsed(device("/dev/sda", children=parts))
    with pytest.raises(TinykdumpError, match="has 2 file systems"):
        disks.only_filesystem(two)


def test_a_label_cannot_fool_the_terminal() -> None:
    (disk,) = parsed(device("/dev/sda", model="A\x1b[2J\n  B", fstype="vfat", label="\x07x\u202e"))
    assert disks.describe(disk) == "/dev/sda  4.0 GiB  A?[2J? B  vfat '?x?'"


def test_a_label_of_another_code_page() -> None:
    """As Windows writes it; lsblk prints it as it is, and it may be on another disk."""
    listed = json.dumps({"blockdevices": [device("/dev/sda", fstype="vfat", label="FR?RE")]})
    (disk,) = disks.parse(listed.encode().replace(b"R?R", b"R\x90R"), {})
    assert disks.describe(disk).endswith("  vfat 'FR\ufffdRE'")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"blockdevices": [{}]}', b"\xff"])
def test_what_lsblk_never_prints(text: bytes) -> None:
    with pytest.raises(TinykdumpError, match="cannot read what lsblk prints"):
        disks.parse(text, {})


@given(st.text(), st.text())
def test_any_label_and_model_is_one_line(label: str, model: str) -> None:
    (disk,) = parsed(device("/dev/sda", model=model, fstype="vfat", label=label))
    shown = disks.describe(disk)
    assert shown.isprintable()


def test_each_type_that_is_made_has_all_that_it_takes() -> None:
    for name in MADE:
        known = FILESYSTEMS[name]
        assert {"LABEL", "DEVICE"} <= set(known.make) & set(known.relabel)
        assert known.package
        assert known.longest_label >= len("TINYKDUMP")
