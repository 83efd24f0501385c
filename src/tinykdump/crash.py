# SPDX-License-Identifier: GPL-2.0-or-later
"""The last crash of this machine, from pstore or from a mounted stick. Reads only."""

import hashlib
from collections.abc import Sequence

from tinykdump import dump, dumps, hardware, pstore, stick
from tinykdump.clock import local
from tinykdump.crashlog import Boots, CrashLog
from tinykdump.dumps import Saved
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.status import Crash
from tinykdump.stick import Stick


def on_stick(host: Host, plugged: Stick | None) -> tuple[Saved, ...] | None:
    """The dumps of this machine on the stick, the oldest first; None if it is not mounted."""
    if plugged is None or plugged.mounted is None:
        return None
    return dumps.on(host.path(plugged.mounted), hardware.machine_name(host))


def known(host: Host, target: str) -> Crash | None:
    """The last crash, as far as pstore and the stick with the tag ``target`` tell."""
    try:
        found = stick.find(host, target)
    except TinykdumpError:  # blkid is not installed
        found = ()
    boots = pstore.boots(host)
    saved = on_stick(host, found[0] if found else None) or ()
    return last(boots, pstore.crash_log(host, boots), saved)


def last(boots: Boots, log: CrashLog | None, saved: Sequence[Saved]) -> Crash | None:
    """The last crash: that of the log of pstore, unless a dump on the stick is newer."""
    newest = saved[-1] if saved else None
    when = dump.time(newest.name) if newest else None
    if newest and when and (log is None or when.timestamp() > log.time):
        complete = newest.complete
        return Crash(
            id=newest.name.removesuffix(dump.PARTIAL),
            time=local(when.timestamp()),
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
