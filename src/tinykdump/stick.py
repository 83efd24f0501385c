# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the crash kernel would find the stick that is plugged in, and could save a dump to it.

Nothing is mounted or written here. blkid(8) probes the file system without udev. Its free space
comes from the mount or, if it is not mounted, from the file system's own data (room.py).
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinykdump import kernels, mounts, room
from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import FILESYSTEMS, is_mounted_by
from tinykdump.host import Host
from tinykdump.image import programs
from tinykdump.run import run

# src/crash/stick.sh recognizes a disk behind USB in the same way, and hides all others.
_USB = re.compile(r".*/usb[0-9].*/.*")


@dataclass(frozen=True)
class Stick:
    """A device whose file system has the tag of the target."""

    device: Path
    is_usb: bool
    filesystem: str  # its type as blkid(8) names it; empty: not known
    write_protected: bool
    mounted: Path | None
    free: int | None  # bytes; None: not known
    # Bytes of old dumps that the crash kernel removes when it needs room; 0 if it is not mounted.
    removable: int = 0


def find(host: Host, target: str) -> tuple[Stick, ...]:
    """The devices behind USB that have the tag ``target``, LABEL=... or UUID=... .

    If there is none, the device that udev knows, which is not behind USB or cannot be read.
    Raises TinykdumpError when blkid is not installed.
    """
    tag, _, value = target.partition("=")
    found = []
    for device in behind_usb(host):
        values = probe(host, device)
        if values.get(tag) == value:
            found.append(look(host, device, values.get("TYPE", "")))
    if not found:
        linked = host.resolve(f"/dev/disk/by-{tag.lower()}/{value}")
        if linked is not None:
            kind, is_usb = probe(host, linked).get("TYPE", ""), linked in behind_usb(host)
            found.append(look(host, linked, kind, is_usb=is_usb))
    return tuple(found)


def behind_usb(host: Host) -> tuple[Path, ...]:
    """The device nodes of the disks and partitions behind USB that have a medium."""
    found = []
    for entry in host.children("/sys/class/block"):
        uevent = host.text(entry / "uevent") or ""
        name = re.search(r"^DEVNAME=(.+)$", uevent, re.MULTILINE)
        has_medium = (host.text(entry / "size") or "0") != "0"
        if name and has_medium and _USB.fullmatch(str(host.resolve(entry))):
            found.append(Path("/dev") / name[1])
    return tuple(found)


def probe(host: Host, device: Path) -> dict[str, str]:
    """The tags that blkid(8) reads from the device itself; none if it finds nothing."""
    done = run(["blkid", "-p", "-o", "export", host.path(device)], check=False)
    lines = done.stdout.decode(errors="replace").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def look(host: Host, device: Path, filesystem: str, *, is_usb: bool = True) -> Stick:
    """A device that has a file system of that type."""
    place = mounts.mount_point(host, device)
    return Stick(
        device=device,
        is_usb=is_usb,
        filesystem=filesystem,
        write_protected=host.text(f"/sys/class/block/{device.name}/ro") == "1",
        mounted=place,
        free=_free(host, device, filesystem, place),
    )


def _free(host: Host, device: Path, filesystem: str, place: Path | None) -> int | None:
    """Free bytes, or None if not known."""
    try:
        if place is not None:
            held = os.statvfs(host.path(place))
            return held.f_bavail * held.f_frsize
        descriptor = os.open(host.path(device), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return room.free(filesystem, lambda at, size: os.pread(descriptor, size, at))
        finally:
            os.close(descriptor)
    except OSError:  # it was unplugged, or cannot be read
        return None


def problems(
    found: Sequence[Stick], target: str, filesystems: Sequence[str], dump: int
) -> Iterator[TinykdumpError]:
    """The reasons why the crash kernel could not save a dump of ``dump`` bytes.

    ``filesystems`` are those that the image mounts. A stick that is not plugged in is no problem.
    """
    if len(found) > 1:
        names = ", ".join(str(each.device) for each in found)
        yield TinykdumpError(f"{names} all have {target}",
                             "unplug all but one: the crash kernel uses any of them")  # fmt: skip
    for each in found:
        yield from _problems(each, target, filesystems, dump)


def _problems(
    stick: Stick, target: str, filesystems: Sequence[str], dump: int
) -> Iterator[TinykdumpError]:
    if not stick.is_usb:
        what = f"{stick.device} has {target} but is not a USB device: the crash kernel ignores it"
        yield TinykdumpError(what, "use a USB stick")
        return
    if not is_mounted_by(stick.filesystem, filesystems):
        kind = stick.filesystem or "an unknown file system"
        add = "run tinykdump -l, which adds it if filesystems = auto, or " * (kind in FILESYSTEMS)
        yield TinykdumpError(
            f"{stick.device} has {kind}, but the crash kernel mounts only {', '.join(filesystems)}",
            f"{add}format the stick with tinykdump prepare",
        )
    if stick.write_protected:
        yield TinykdumpError(f"{stick.device} is write-protected",
                             "move its switch, or use another stick")  # fmt: skip
    if stick.free is not None and stick.free + stick.removable < dump:
        old = f" and {room.amount(stick.removable)} of old dumps" if stick.removable else ""
        unseen = "mount it, which counts old dumps that make room, " * (stick.mounted is None)
        yield TinykdumpError(
            f"{stick.device} has {room.amount(stick.free)} free{old}, but a dump takes up to "
            f"{room.amount(dump)}",
            f"{unseen}remove old dumps, or use a larger stick",
        )


def expected_dump(host: Host, level: int) -> int:
    """The largest size of a dump of the running kernel, in bytes; see room.expected_dump."""
    found = programs.shortcoming(host, kernels.config(host, host.running_kernel()))
    if found:
        level &= ~found.kept
    meminfo, iomem = host.text("/proc/meminfo") or "", host.text("/proc/iomem") or ""
    return room.expected_dump(meminfo, iomem, level)
