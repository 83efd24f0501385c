# SPDX-License-Identifier: GPL-2.0-or-later
"""The last crash of this machine, from pstore or from a mounted stick. Reads only."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tinykdump import dump, hardware, pstore, stick
from tinykdump.clock import local
from tinykdump.crashlog import Boots, CrashLog
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.status import Crash
from tinykdump.stick import Stick


def dumps(host: Host, plugged: Stick | None) -> tuple[Path, ...] | None:
    """The dumps of this machine on the stick, the oldest first; None if it is not mounted.

    Links are not followed.
    """
    if plugged is None or plugged.mounted is None:
        return None
    top = dump.of_machine(plugged.mounted, hardware.machine_name(host))
    if host.resolve(top) != top:
        return ()
    return tuple(
        path
        for path in host.children(top)
        if dump.is_dump(path.name) and host.resolve(path) == path and host.path(path).is_dir()
    )


def time_of(directory: Path) -> datetime | None:
    """When the crash kernel began this dump, by its clock; None: no crash kernel made that name."""
    try:
        made = datetime.strptime(directory.name[:16], "%Y%m%dT%H%M%SZ")
        return made.replace(tzinfo=UTC).astimezone()
    except (ValueError, OverflowError):
        return None


def known(host: Host, target: str) -> Crash | None:
    """The last crash, as far as pstore and the stick with the tag ``target`` tell."""
    try:
        found = stick.find(host, target)
    except TinykdumpError:  # blkid is not installed
        found = ()
    boots = pstore.boots(host)
    on_stick = dumps(host, found[0] if found else None) or ()
    return last(boots, pstore.crash_log(host, boots), on_stick)


def last(boots: Boots, log: CrashLog | None, on_stick: Sequence[Path]) -> Crash | None:
    """The last crash: that of the log of pstore, unless a dump on the stick is newer."""
    newest = on_stick[-1] if on_stick else None
    when = time_of(newest) if newest else None
    if newest and when and (log is None or when.timestamp() > log.time):
        complete = dump.is_complete(newest.name)
        return Crash(
            id=newest.name.removesuffix(dump.PARTIAL),
            time=when,
            exact=True,
            saved=complete,
            result="saved on the stick" if complete else "failed: the dump is not complete",
            previous_boot=boots.previous is not None and when.timestamp() >= boots.previous,
        )
    if log is None:
        return None
    return Crash(
        id=hashlib.sha256(log.raw.encode()).hexdigest()[:16],
        time=local(log.time),
        exact=log.since == log.time,
        saved=log.saved,
        result=log.verdict,
        previous_boot=log.ended_previous(boots),
    )
