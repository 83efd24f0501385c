# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells at the next login and in the journal that the machine crashed, until somebody has seen it.

pam_motd(8) shows the files of /run/motd.d at a login. systemd.io/JOURNAL_NATIVE_PROTOCOL describes
how an entry gets into the journal.
"""

import json
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tinykdump import files, state
from tinykdump.clock import local
from tinykdump.host import Host
from tinykdump.status import Crash

MOTD = Path("/run/motd.d/tinykdump")
NOTE = state.STATE / "notice.json"
# src/systemd/tinykdump.catalog explains entries with this ID; see catalog(7) of systemd.
MESSAGE_ID = "6906aa2b48e8467c983a3fca339892b1"

_JOURNAL = Path("/run/systemd/journal/socket")
_ERROR = 3  # as in syslog(3)


@dataclass(frozen=True)
class _Note:
    """The last crash that was announced."""

    id: str
    time: datetime
    seen: bool


def is_seen(host: Host, crash: Crash) -> bool:
    """Whether somebody has seen that crash, or a later one.

    A note of a crash that is still to come is of a clock that was wrong, or of a forged dump.
    """
    note = _read(host)
    if note is None:
        return False
    if note.id == crash.id:
        return note.seen
    return crash.time <= note.time <= local(time.time())


def announce(host: Host, crash: Crash) -> bool:
    """Tell about a crash, in the journal only once; returns whether nobody has seen it yet.

    Raises OSError. It is told again then, because it is noted last.
    """
    if is_seen(host, crash):
        forget(host)
        return False
    _show(host, f"tinykdump: {sentence(crash)} (run tinykdump status)\n")
    note = _read(host)
    if note is None or note.id != crash.id:
        _log(host, crash)
        _write(host, crash, seen=False)
    return True


def see(host: Host, crash: Crash) -> None:
    """Note that somebody has seen a crash, and tell no more about it. Raises OSError."""
    _write(host, crash, seen=True)
    forget(host)


def forget(host: Host) -> None:
    """Do not show anything at the next login. Raises OSError."""
    host.path(MOTD).unlink(missing_ok=True)


def sentence(crash: Crash) -> str:
    """What happened; every user of the machine can read it."""
    dump = "the dump was saved" if crash.saved else "no complete dump was saved"
    return f"this machine crashed {crash.when()}; {dump}"


def _read(host: Host) -> _Note | None:
    """The note, or None if there is none that can be read."""
    try:
        found = json.loads(host.text(NOTE) or "")
        when = datetime.fromisoformat(found["time"]).astimezone()
        return _Note(str(found["id"]), when, found["seen"] is True)
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _write(host: Host, crash: Crash, *, seen: bool) -> None:
    note = {"id": crash.id, "time": crash.time.isoformat(), "seen": seen}
    files.publish({host.path(NOTE): json.dumps(note).encode()})


def _show(host: Host, text: str) -> None:
    """Write the file for pam_motd, which users may read. Raises OSError."""
    place = host.path(MOTD)
    if not place.parent.exists():
        place.parent.mkdir(parents=True)
        place.parent.chmod(0o755)  # whatever the umask of the service is
    descriptor, name = tempfile.mkstemp(prefix=".tinykdump-", dir=place.parent)
    try:
        with files.naming(place), os.fdopen(descriptor, "w") as new:
            os.fchmod(descriptor, 0o644)
            new.write(text)
        Path(name).replace(place)
    finally:
        Path(name).unlink(missing_ok=True)


def _log(host: Host, crash: Crash) -> None:
    """Write an entry to the journal. Raises OSError if no journal is running."""
    fields = {
        "MESSAGE": sentence(crash),
        "MESSAGE_ID": MESSAGE_ID,
        "PRIORITY": _ERROR,
        "SYSLOG_IDENTIFIER": "tinykdump",
        "TINYKDUMP_TIME": crash.when(),
        "TINYKDUMP_RESULT": crash.result,
    }
    # A value that has a line break would end its field.
    lines = (f"{name}={' '.join(str(value).split())}\n" for name, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal, files.naming(_JOURNAL):
        journal.sendto("".join(lines).encode(), str(host.path(_JOURNAL)))
