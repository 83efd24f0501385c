# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds dumps on sticks that are mounted. Nothing is mounted here, and no link is followed."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinykdump import dump, hardware, mounts
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host

_MOUNT = "mount it, for example with mount -o ro,nosuid,nodev,noexec"


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
    found = [saved for _, place in mounts.devices(host) for saved in on(host.path(place))]
    return tuple(sorted(found, key=lambda saved: dump.order(saved.name)))


def named(host: Host, what: str) -> Path:
    """The dump that a user means: "latest", a device, a directory that has dumps, or a dump.

    All but the last mean the newest complete dump there. Raises TinykdumpError if there is none.
    """
    if what == dump.LATEST:
        return _newest(mounted(host), "the sticks that are mounted", _MOUNT + " DEVICE /mnt")
    path = Path(what)
    hint = "to restore what there is of another one, name its directory"
    if path.is_block_device():
        return _newest(on(host.path(_mount_point(host, path))), what, hint)
    place = path.resolve()
    if place.name == dump.TOP or (place / dump.TOP).is_dir():
        return _newest(on(place.parent if place.name == dump.TOP else place), what, hint)
    below = [Saved(each, path.name, each.name) for each in _directories(path)]
    found = [saved for saved in below if dump.is_dump(saved.name)]
    return _newest(tuple(found), what, hint) if found else path


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


def _mount_point(host: Host, device: Path) -> Path:
    """Where a device is mounted, or the first mounted partition of a disk."""
    number = device.stat().st_rdev
    disk = host.resolve(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    names = [entry.name for entry in host.children(disk)] if disk else []
    wanted = {device.resolve(), *(Path("/dev") / name for name in names)}
    place = next((place for each, place in mounts.devices(host) if each in wanted), None)
    if place is None:
        raise TinykdumpError(f"{device} is not mounted", f"{_MOUNT} {device} /mnt")
    return place


def _directories(place: Path) -> Iterator[Path]:
    """The directories in a directory; none if it cannot be read."""
    try:
        entries = sorted(place.iterdir()) if stat.S_ISDIR(place.lstat().st_mode) else []
        yield from (entry for entry in entries if stat.S_ISDIR(entry.lstat().st_mode))
    except OSError:  # it is missing, or another user's
        return
