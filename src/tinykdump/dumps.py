# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds dumps on sticks. No link on them is followed."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tinykdump import dump, hardware, mounts, state, stick
from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import FILESYSTEMS, is_mounted_by
from tinykdump.host import Host
from tinykdump.stick import Stick

_MOUNT = "mount -o ro,nosuid,nodev,noexec"
_OTHER = "to restore what there is of another one, name its directory"


@dataclass(frozen=True)
class Saved:
    """A dump on a stick, by its names; anyone can have written them."""

    directory: Path
    machine: str
    name: str

    @property
    def complete(self) -> bool:
        """Whether the crash kernel finished writing it."""
        return dump.is_complete(self.name)


def on(place: Path, machine: str = "") -> tuple[Saved, ...]:
    """The dumps on the stick that is mounted there, or only those of one machine, the oldest first.

    None if it has none.
    """
    found = [
        Saved(directory, owner.name, directory.name)
        for owner in _directories(place / dump.TOP)
        if dump.is_machine(owner.name) and machine in ("", owner.name)
        for directory in _directories(owner)
        if dump.is_dump(directory.name)
    ]
    return tuple(sorted(found, key=lambda saved: dump.order(saved.name)))


def mounted(host: Host) -> tuple[Saved, ...]:
    """The dumps on all sticks that are mounted, the oldest first."""
    usb = stick.behind_usb(host)  # all users can write to /tmp, which can be another disk
    found = [
        saved
        for device, place in mounts.devices(host)
        if device in usb
        for saved in on(host.path(place))
    ]
    return tuple(sorted(found, key=lambda saved: dump.order(saved.name)))


def counted(host: Host, found: Iterable[Stick], keep: int) -> tuple[Stick, ...]:
    """The sticks, with the bytes that the crash kernel removes there when it needs room.

    As make_room() in src/crash/stick.sh does: the memory of this machine's partial dumps and,
    unless ``keep`` is 0, its complete dumps, except the newest one.
    """
    machine = hardware.machine_name(host)
    return tuple(
        replace(each, removable=_removable(on(host.path(each.mounted), machine), keep))
        if each.mounted
        else each
        for each in found
    )


def _removable(saved: Sequence[Saved], keep: int) -> int:
    complete = [each.directory for each in saved if each.complete]
    partial = [each.directory for each in saved if not each.complete]
    with suppress(OSError):  # it was pulled out
        files = [path for each in partial for path in each.glob("vmcore*")]
        files += [path for each in complete[:-1] if keep for path in each.iterdir()]
        return sum(path.lstat().st_size for path in files)
    return 0


def sticks(host: Host, target: str) -> tuple[Stick, ...]:
    """The sticks with the tag ``target`` that the crash kernel can have saved a dump to.

    A disk that is not behind USB can only be called like one. To mount another file system would
    load its driver for whatever somebody plugged in. Raises TinykdumpError.
    """
    return tuple(
        each
        for each in stick.find(host, target)
        if each.is_usb and is_mounted_by(each.filesystem, FILESYSTEMS)
    )


def readable(host: Host, each: Stick) -> AbstractContextManager[Path]:
    """Where the files of a stick are for the block: if it is not mounted, only root can enter."""
    if each.mounted is not None:
        return nullcontext(host.path(each.mounted))
    return mounts.mounted(host, each.device, each.filesystem, below=state.RUNTIME, read_only=True)


@contextmanager
def opened(host: Host, what: str) -> Iterator[Path]:
    """The dump that a user means: "latest", a device, a directory that has dumps, or a dump.

    All but the last mean the newest complete dump there. A device that is not mounted is mounted
    for the block, read-only and where only root can enter. Raises TinykdumpError.
    """
    path = Path(what)
    if not path.is_block_device():
        yield named(host, what)
        return
    devices = _with_parts(host, path)
    place = next((place for each, place in mounts.devices(host) if each in devices), None)
    if place is not None:
        yield _newest(on(host.path(place)), what, _OTHER)
        return
    if os.geteuid() != 0:
        hint = f"run tinykdump restore as root, or {_MOUNT} {path} /mnt"
        raise TinykdumpError(f"{path} is not mounted", hint)
    device, kind = _filesystem(host, path, devices)
    with mounts.mounted(host, device, kind, below=state.RUNTIME, read_only=True) as own:
        yield _newest(on(own), what, f"{_MOUNT} {device} /mnt, and name the directory of another")


def named(host: Host, what: str) -> Path:
    """The dump that "latest" or a directory means. Raises TinykdumpError if there is none."""
    if what == dump.LATEST:
        hint = f"name the device of a stick, or {_MOUNT} DEVICE /mnt"
        return _newest(mounted(host), "the sticks that are mounted", hint)
    path = Path(what)
    place = path.resolve()
    if place.name == dump.TOP or (place / dump.TOP).is_dir():
        return _newest(on(place.parent if place.name == dump.TOP else place), what, _OTHER)
    below = [Saved(each, path.name, each.name) for each in _directories(path)]
    found = [saved for saved in below if dump.is_dump(saved.name)]
    return _newest(tuple(found), what, _OTHER) if found else path


def name(host: Host, directory: Path) -> str:
    """What kdump would call the directory of a dump: HOST-DATE-TIME.

    HOST is the name of this host for its own dumps, otherwise the name of the machine on the stick.
    """
    absolute = directory.resolve()
    machine = absolute.parent.name
    if machine == hardware.machine_name(host):
        machine = (host.text("/proc/sys/kernel/hostname") or machine).replace("/", "_")
    elif not dump.is_machine(machine):
        machine = "unknown"
    return dump.as_kdump(machine, absolute.name)


def _newest(found: tuple[Saved, ...], where: str, hint: str) -> Path:
    complete = [saved for saved in found if saved.complete]
    if not complete:
        raise TinykdumpError(f"no complete dump on {where}", hint)
    return max(complete, key=lambda saved: dump.order(saved.name)).directory


def _with_parts(host: Host, device: Path) -> tuple[Path, ...]:
    """A block device, and the partitions on it."""
    number = device.stat().st_rdev
    disk = host.resolve(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    names = [each.name for each in host.children(disk) if host.exists(each / "partition")
             ] if disk else []  # fmt: skip
    return (device.resolve(), *(Path("/dev") / name for name in names))


def _filesystem(host: Host, device: Path, devices: tuple[Path, ...]) -> tuple[Path, str]:
    """The one of these devices that has a file system that dumps can be on, and its type."""
    kinds = {each: stick.probe(host, each).get("TYPE", "") for each in devices}
    known = [each for each, kind in kinds.items() if is_mounted_by(kind, FILESYSTEMS)]
    if len(known) != 1:
        what = "several file systems" if known else f"no file system of {', '.join(FILESYSTEMS)}"
        raise TinykdumpError(f"{device} has {what}", "name the partition with the dumps")
    return known[0], kinds[known[0]]


def _directories(place: Path) -> Iterator[Path]:
    """The directories in a directory; none if it cannot be read."""
    try:
        entries = sorted(place.iterdir()) if stat.S_ISDIR(place.lstat().st_mode) else []
        yield from (entry for entry in entries if stat.S_ISDIR(entry.lstat().st_mode))
    except OSError:  # it is missing, or another user's
        return
