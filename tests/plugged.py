# SPDX-License-Identifier: GPL-2.0-or-later
"""Sticks in a machine that is a directory tree: real file systems, with their files in sysfs."""

import subprocess
from pathlib import Path

from tests.fakehost import FakeHost

MIB = 1 << 20

# Commands that make a file system on a file; label and path are appended.
MAKERS = {
    "vfat": ("mkfs.vfat", "-F", "32", "-n"),
    "fat16": ("mkfs.vfat", "-F", "16", "-n"),
    "exfat": ("mkfs.exfat", "-L"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-L"),
    "ext2": ("mkfs.ext2", "-q", "-F", "-L"),
}

_USB = "/sys/devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0/block"
_PCI = "/sys/devices/pci0000:00/0000:00:1f.2/ata1/host1/target1:0:0/1:0:0:0/block"


def made(path: Path, kind: str, *, label: str = "TINYKDUMP", size: int = 64 * MIB) -> Path:
    """Make a file system on a sparse file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as image:
        image.truncate(size)
    subprocess.run([*MAKERS[kind], label, path], check=True, capture_output=True)
    return path


def plug(fake: FakeHost, kind: str, name: str = "sdb1", *, label: str = "TINYKDUMP",
         size: int = 64 * MIB, usb: bool = True, udev: bool = True) -> Path:  # fmt: skip
    """Plug in a disk with one partition, and return its image; ``udev``: with the link of udev."""
    disk = name.rstrip("0123456789")
    image = made(fake.path(f"/dev/{name}"), kind, label=label, size=size)
    fake.write(f"/dev/{disk}", bytes(MIB))
    top = _USB if usb else _PCI
    for block, place in ((disk, f"{top}/{disk}"), (name, f"{top}/{disk}/{name}")):
        fake.write(f"{place}/uevent", f"MAJOR=8\nMINOR=17\nDEVNAME={block}\n")
        fake.write(f"{place}/size", f"{size // 512}\n")
        fake.write(f"{place}/ro", "0\n")
        fake.link(f"/sys/class/block/{block}", f"../../{place.removeprefix('/sys/')}")
    if udev and not fake.path(f"/dev/disk/by-label/{label}").is_symlink():
        fake.link(f"/dev/disk/by-label/{label}", f"../../{name}")
    return image


def fill(image: Path, name: str, size: int) -> None:
    """Write a file of that size to a FAT image."""
    subprocess.run(["mcopy", "-i", image, "-", f"::{name}"], input=b"\1" * size, check=True)


def free_of_fat(image: Path) -> int:
    """The free space of a FAT image according to mtools, in bytes."""
    listed = subprocess.run(["mdir", "-i", image], capture_output=True, check=True).stdout.decode()
    return int(listed.split("bytes free")[0].split("\n")[-1].replace(" ", ""))
