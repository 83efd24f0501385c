# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks of a machine as lsblk(8) lists them, and which one can become a stick. No I/O here.

Labels and names of models come from the disk, so they can contain anything.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import FILESYSTEMS
from tinykdump.room import amount
from tinykdump.text import printable

# Without NAME, lsblk lists all devices side by side.
COLUMNS = "NAME,PATH,TYPE,SIZE,RO,VENDOR,MODEL,FSTYPE,LABEL,MOUNTPOINTS"

# Bytes: FAT32 has at least 65525 clusters, and a dump is larger anyway.
_SMALLEST = 64 << 20

# Where FAT ends: Windows makes no larger FAT32, and large sticks are sold with exFAT. In bytes.
_LARGEST_FAT = 32 << 30

# An MBR has 32 bits for a number of sectors, which usually have 512 bytes.
_LARGEST_MBR = 2 << 40

# What blkid(8) calls a disk, or a part of one, that belongs to a larger whole or to the system.
_PARTS_OF_MORE = {
    "swap": "swap space",
    "LVM2_member": "a physical volume of LVM",
    "linux_raid_member": "a part of a RAID",
    "crypto_LUKS": "an encrypted disk",
    "bcache": "a part of a bcache",
    "zfs_member": "a part of a ZFS pool",
    "BitLocker": "an encrypted disk",
}  # fmt: skip

_CHOOSE = "name another disk; tinykdump prepare lists those behind USB"


@dataclass(frozen=True)
class Disk:
    """A block device, and the devices on it."""

    path: Path
    kind: str  # disk, part, crypt, lvm, raid1 and so on
    size: int  # bytes
    read_only: bool
    name: str  # of its model; printable
    filesystem: str  # its type as blkid(8) names it; empty: none, or not known
    label: str  # printable
    mounted: tuple[str, ...]  # mount points, or [SWAP]
    parts: tuple["Disk", ...]

    def everything(self) -> Iterator["Disk"]:
        """The device, and all that are on it."""
        yield self
        for part in self.parts:
            yield from part.everything()


def parse(listed: bytes, tags: Mapping[Path, Mapping[str, str]]) -> tuple[Disk, ...]:
    """The devices in "lsblk --json --bytes --output COLUMNS". Raises TinykdumpError.

    ``tags`` are what blkid(8) reads from devices now. lsblk asks udev, which may not run.
    """
    text = listed.decode(errors="replace")  # Windows writes labels of FAT in its own code page
    try:
        return tuple(_disk(each, tags) for each in json.loads(text)["blockdevices"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TinykdumpError(
            "cannot read what lsblk prints", "update util-linux to 2.37 or later"
        ) from None


def _disk(found: dict[str, Any], tags: Mapping[Path, Mapping[str, str]]) -> Disk:
    known = tags.get(Path(found["path"]))
    if known is None:
        known = {"TYPE": found["fstype"] or "", "LABEL": found["label"] or ""}
    return Disk(
        path=Path(found["path"]),
        kind=found["type"],
        size=int(found["size"] or 0),
        read_only=found["ro"] in (True, "1"),
        name=_text(" ".join(found[key] or "" for key in ("vendor", "model"))),
        filesystem=_text(known.get("TYPE", "")),
        label=_text(known.get("LABEL", "")),
        mounted=tuple(_text(place) for place in found["mountpoints"] if place),
        parts=tuple(_disk(each, tags) for each in found.get("children", ())),
    )


def _text(found: str) -> str:
    return " ".join(printable(found).split())


def describe(disk: Disk) -> str:
    """A disk in one line, and a line for each part of it."""
    model = f"  {disk.name or 'unknown model'}" * (disk.kind == "disk")
    lines = [f"{disk.path}  {amount(disk.size)}{model}{_content(disk)}"]
    for part in disk.parts:
        lines += [f"  {each.path}  {amount(each.size)}{_content(each)}"
                  for each in part.everything()]  # fmt: skip
    return "\n".join(lines)


def _content(disk: Disk) -> str:
    if disk.kind == "disk" and disk.parts:
        return ""
    label = f" {disk.label!r}" * bool(disk.label)
    places = f", mounted on {' and '.join(disk.mounted)}" * bool(disk.mounted)
    return f"  {disk.filesystem or 'no file system'}{label}{places}"


def chosen(disks: Sequence[Disk], device: Path, usb: Collection[Path]) -> Disk:
    """The disk, or the part of one, that ``device`` is, if it is behind USB and nobody uses it.

    ``usb`` are the devices behind USB. Raises TinykdumpError.
    """
    for disk in disks:
        if device in (each.path for each in disk.everything()):
            _refuse(disk, device, usb)
            return next(each for each in disk.everything() if each.path == device)
    raise TinykdumpError(f"{device} is not a disk", _CHOOSE)


def _refuse(disk: Disk, device: Path, usb: Collection[Path]) -> None:
    """Raise TinykdumpError if something of the disk must not be touched."""
    if device not in usb or disk.path not in usb:
        raise TinykdumpError(f"{device} is not a disk behind USB", _CHOOSE)
    for each in disk.everything():
        if each.mounted == ("[SWAP]",):
            raise TinykdumpError(f"{each.path} is in use as swap space", _CHOOSE)
        if each.mounted:
            raise TinykdumpError(
                f"{each.path} is mounted on {each.mounted[0]}", f"umount {each.path} first"
            )
        if each.filesystem in _PARTS_OF_MORE:
            raise TinykdumpError(
                f"{each.path} is {_PARTS_OF_MORE[each.filesystem]}",
                f"name another disk, or remove that first with wipefs --all {each.path}",
            )
        if each.kind not in ("disk", "part"):
            raise TinykdumpError(f"{each.path} is of type {each.kind}, not a plain disk", _CHOOSE)
    if disk.read_only:
        raise TinykdumpError(
            f"{disk.path} is write-protected", "move its switch, or use another stick"
        )


def whole(disk: Disk) -> None:
    """Check that a disk can be partitioned. Raises TinykdumpError."""
    if disk.kind != "disk":
        raise TinykdumpError(
            f"{disk.path} is a part of a disk", "name the disk, or keep its data with --keep-data"
        )
    if disk.size < _SMALLEST:
        raise TinykdumpError(
            f"{disk.path} has only {amount(disk.size)}", f"use one of {amount(_SMALLEST)} or more"
        )


def default_filesystem(size: int, usable: Sequence[str]) -> str:
    """The type of file system for a stick of ``size`` bytes, one of ``usable``, not empty."""
    best = ("vfat", "exfat", "ext4") if size <= _LARGEST_FAT else ("exfat", "ext4", "vfat")
    return next((kind for kind in best if kind in usable), usable[0])


def table(size: int, kind: str) -> str:
    """The input of sfdisk(8) for one partition with a file system of that type."""
    is_large = size > _LARGEST_MBR
    code = FILESYSTEMS[kind].partition[1 if is_large else 0]
    return f"label: {'gpt' if is_large else 'dos'}\nstart=1MiB, type={code}\n"


def only_filesystem(disk: Disk) -> Disk:
    """The one device of a disk that has a file system. Raises TinykdumpError."""
    found = [each for each in disk.everything() if each.filesystem and not each.parts]
    if len(found) != 1:
        raise TinykdumpError(
            f"{disk.path} has {len(found) or 'no'} file system{'s' * (len(found) != 1)}",
            "name one of its parts" if found else "prepare it without --keep-data",
        )
    return found[0]
