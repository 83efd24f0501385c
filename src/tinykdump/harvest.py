# SPDX-License-Identifier: GPL-2.0-or-later
"""Restores the new dumps of this machine from the sticks to where ABRT and people look for them.

The sticks are only read. What was restored is noted on the host.
"""

import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tinykdump import dumps, files, hardware, keys, parts, restore, state
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.memory import MIB
from tinykdump.parts import Dump
from tinykdump.restore import Restored

# The dumps that were restored, one in each line: NAME:DIGEST, or NAME alone.
NOTES = state.STATE / "harvested"
_NOTED = 1000  # the newest ones; `keep` limits how many are on a stick

_LOCK = state.RUNTIME / "harvest.lock"

# A fraction of the file system that stays free, as systemd-coredump leaves it (coredump.conf(5)).
_KEPT_FREE = 0.15


@dataclass(frozen=True)
class Harvested:
    """What became of one dump, or of a stick that cannot be mounted."""

    target: Path  # the directory for its files, or the device of the stick
    restored: Restored


def harvest(host: Host, config: Config) -> Iterator[Harvested]:
    """Restore each complete dump of this machine that was not restored before, the newest first.

    A dump for which there is no space, or no key, is tried again the next time. A stick that cannot
    be mounted does not stop it. Raises TinykdumpError or OSError.
    """
    with _alone(host):
        for each in dumps.sticks(host, str(config.target)):
            try:
                with dumps.readable(host, each) as place:
                    yield from _harvest(host, config, place)
            except TinykdumpError as error:
                failure = TinykdumpError(f"{each.device}: {error.message}", error.hint)
                yield Harvested(each.device, Restored((), (), (failure,)))


@contextmanager
def _alone(host: Host) -> Iterator[None]:
    """Raise TinykdumpError if another process does this now: each could delete what it restores."""
    files.private(host.path(state.RUNTIME))
    with host.path(_LOCK).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TinykdumpError("dumps are being harvested already", "wait for it") from None
        yield


def _harvest(host: Host, config: Config, place: Path) -> Iterator[Harvested]:
    here = hardware.machine_name(host)
    for saved in reversed(dumps.on(place)):
        if saved.machine != here or not saved.complete or saved.name in _noted(host):
            continue
        target = host.path("/var/crash") / dumps.name(host, saved.directory)
        try:
            found = parts.look(saved.directory)
            note = f"{saved.name}:{_digest(found)}"
            if note in _noted(host):
                continue
            others = sum(each.startswith(f"{saved.name}:") for each in _noted(host))
            target = target.with_name(f"{target.name}-{others + 1}") if others else target
            done = _restore(host, config, found, target)
        except TinykdumpError as error:
            yield Harvested(target, Restored((), (), (error,)))
            continue
        # What has no vmcore because the disk became full is tried again.
        if done is None or any(file.name.startswith("vmcore") and not file.suffix
                               for file in done.files):  # fmt: skip
            _note(host, note)
        if done is not None:
            yield Harvested(target, done)


def _digest(found: Dump) -> str:
    """Tells dumps of the same name apart: without a clock, the time of a crash can come twice."""
    sums = [(part.path.name, *sorted(part.sums)) for each in found.streams for part in each.parts]
    return hashlib.sha256(repr(sums).encode()).hexdigest()[:16]


def _restore(host: Host, config: Config, found: Dump, target: Path) -> Restored | None:
    """Restore a dump; None if someone has done so already. Raises TinykdumpError, OSError."""
    if os.path.lexists(target):
        _refuse_others(target)
        with restore.alone(target):
            if not restore.is_leftover(target):
                return None
            files.delete(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_space(target.parent, sum(stream.size for stream in found.streams))
    with keys.ending_agent(host):
        return restore.restore(found, target, keys.homes(host), plain=not config.encrypt)


def _refuse_others(target: Path) -> None:
    """Raise TinykdumpError unless root made a directory: on some systems all users can."""
    found = target.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise TinykdumpError(f"{target} exists, and is no directory of root's", "delete it")


def _check_space(place: Path, size: int) -> None:
    """Raise TinykdumpError if too little of the file system would stay free."""
    disk = shutil.disk_usage(place)
    usable = disk.free - int(disk.total * _KEPT_FREE)
    if usable < size:
        raise TinykdumpError(
            f"{place} has no space for a dump: {-(-size // MIB)} MiB are needed, and "
            f"{max(0, usable) // MIB} MiB are free beyond the {_KEPT_FREE:.0%} that stay free",
            "delete old dumps there, or use tinykdump restore --output",
        )


def _noted(host: Host) -> tuple[str, ...]:
    return tuple((host.text(NOTES) or "").split())


def _note(host: Host, name: str) -> None:
    """Note that a dump was restored. Raises OSError."""
    names = (*_noted(host), name)[-_NOTED:]
    with state.lock(host):
        files.publish({host.path(NOTES): "".join(f"{each}\n" for each in names).encode()})
