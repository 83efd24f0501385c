# SPDX-License-Identifier: GPL-2.0-or-later
"""The status of the machine, as text and as JSON. Values in, values out; no I/O here.

man/tinykdump.8 documents the JSON. Names and meanings of its keys never change. A new key can be
added; a change of any other kind needs a new VERSION.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime

from tinykdump import room
from tinykdump.clock import shown
from tinykdump.text import printable

VERSION = 1

_MIB = 1 << 20

# SGR sequences (ECMA-48, 8.3.117).
_GREEN, _YELLOW, _RED, _BOLD, _PLAIN = "\033[32m", "\033[33m", "\033[31m", "\033[1m", "\033[0m"


@dataclass(frozen=True)
class Crash:
    """The last crash of this machine that is known."""

    id: str  # the same as long as it is known, and of no other crash
    time: datetime
    exact: bool  # False: it crashed before that time
    saved: bool  # there is a complete dump
    result: str  # what became of the dump, in one line
    previous_boot: bool  # it certainly ended the previous boot; False: maybe an older one
    seen: bool = False  # status has shown it or a later one

    def when(self) -> str:
        """The time for people."""
        return f"{'' if self.exact else 'before '}{shown(self.time)}"


@dataclass(frozen=True)
class Trial:
    """The last crash on purpose (trial.py)."""

    id: str
    time: datetime
    came_out: bool | None  # whether a complete dump has its id; None: not known yet
    seconds: int | None  # from the crash until the dump was saved; None: not known
    result: str  # what became of the dump, in one line; empty: not known yet

    def when(self) -> str:
        """The time for people."""
        return shown(self.time)

    def outcome(self) -> str:
        """What came of it, for people."""
        if not self.came_out:
            return "not known yet" if self.came_out is None else self.result
        took = "" if self.seconds is None else f" {self.seconds} s after the crash"
        return f"came out{took}: {self.result}"


@dataclass(frozen=True)
class Rehearsal:
    """The last crash of a guest (rehearsal.py)."""

    time: datetime
    kernel: str  # version of the system kernel
    image: str  # SHA-256 of the image
    passed: bool
    result: str  # in one line


@dataclass(frozen=True)
class Status:
    """The state of this machine."""

    running: str  # kernel version
    image_built: datetime | None  # when the running kernel's image was built; None: no image
    armed: bool  # tinykdump's crash kernel is loaded
    loaded: str  # version of tinykdump's crash kernel; "foreign": another program's; empty: none
    loaded_at: datetime | None  # when tinykdump's was loaded
    reserved: int  # bytes
    needed: int  # bytes for the running kernel's image; 0: no image
    encrypted: bool
    key: str  # fingerprint that dumps are encrypted to; empty: none, or not encrypted
    key_expires: datetime | None  # None: never, or not known
    key_backup: datetime | None  # when this machine's secret key was copied; None: not, or not ours
    target: str  # the dump target of the loaded image, otherwise of the configuration
    stick: str  # device of the stick that is plugged in; empty: none
    stick_filesystem: str  # its type; empty: not known
    stick_free: int | None  # bytes; None: not known
    expected_dump: int  # the largest size of a dump in bytes; 0: not known
    dumps: int | None  # number of this machine's dumps on the stick; None: it is not mounted
    incomplete_dumps: int | None  # how many of them are incomplete
    last_dump: str  # path of this machine's newest dump on a mounted stick; ".partial": incomplete
    last_dump_at: datetime | None  # when that crash was
    crash_log: str  # where pstore keeps the crash log; empty: nowhere
    crash: Crash | None
    test: Trial | None
    rehearsal: Rehearsal | None
    problems: tuple[str, ...]  # one line each: what is wrong (what to do); the worst first
    notes: tuple[str, ...] = ()  # what works, but could be better (what to do)

    @property
    def next(self) -> str:
        """What to do next, in one line."""
        if self.problems:
            return self.problems[0].rpartition(" (")[2].removesuffix(")")
        if self.crash and not self.crash.seen:
            if self.crash.saved:
                return "restore the dump: tinykdump list --mount shows where it is"
            return "read the crash kernel's log with tinykdump log"
        if not self.stick:
            return f"plug in a stick with {self.target} (tinykdump prepare makes one)"
        return "nothing"

    def to_json(self) -> str:
        """The status as JSON. Times are in ISO 8601 with the offset of the local zone."""
        values = {"version": VERSION, **asdict(self), "next": self.next}
        return json.dumps(values, indent=2, default=datetime.isoformat)

    def to_text(self, *, colour: bool = False) -> str:
        """The status as lines of text; ``colour``: for a terminal that shows colours."""
        return "\n".join(
            f"{name + ':':<14}" + (f"{style}{printable(value)}{_PLAIN}" if style and colour
                                   else printable(value))
            for name, value, style in self._lines()
        )  # fmt: skip

    def check(self) -> tuple[int, str]:
        """Exit status and line for monitoring, as plugins of Nagios and its kin give them."""
        found = list(self.problems)
        if self.crash and not self.crash.seen:
            found.append(f"crashed {self.crash.when()}: {self.crash.result} (run tinykdump status)")
        more = f" (and {len(found) - 1} more)" * (len(found) > 1)
        first = f"{found[0]}{more}" if found else ""
        if not self.armed:
            return 2, f"TINYKDUMP CRITICAL - not armed: {first or self.next}"
        if first:
            return 1, f"TINYKDUMP WARNING - {first}"
        return 0, f"TINYKDUMP OK - armed with {self.loaded}"

    def _lines(self) -> Iterator[tuple[str, str, str]]:
        """Name, value and colour of each line."""
        yield "kernel", self.running, ""
        if self.image_built:
            yield "image", f"built {shown(self.image_built)}", ""
        if self.armed:
            yield "crash kernel", f"armed with {self.loaded}", _GREEN
        else:
            foreign = ": another program's is loaded" * (self.loaded == "foreign")
            yield "crash kernel", f"not armed{foreign}", _RED
        if self.loaded_at:
            yield "loaded", shown(self.loaded_at), ""
        needed = f" (needed: {self.needed // _MIB} MiB)" if self.needed else ""
        yield "reserved", f"{self.reserved // _MIB} MiB{needed}", ""
        yield "key", self._key(), ""
        if self.key_backup:
            yield "key backup", shown(self.key_backup), ""
        stick = self._stick() if self.stick else "not plugged in"
        yield "stick", f"{self.target}, {stick}", ""
        yield "crash log", self.crash_log or "lost: pstore has no backend (see tinykdump log)", ""
        if self.dumps:
            partial = f", {self.incomplete_dumps} incomplete" * bool(self.incomplete_dumps)
            yield "dumps", f"{self.dumps}{partial}", ""
        if self.last_dump:
            when = f"{shown(self.last_dump_at)}: " if self.last_dump_at else ""
            yield "last dump", f"{when}{self.last_dump}", ""
        if self.crash:
            name = "last crash" if self.crash.previous_boot else "older crash"
            colour = "" if self.crash.saved else _YELLOW
            yield name, f"{self.crash.when()}: {self.crash.result}", colour
        if self.test:
            colour = "" if self.test.came_out else _YELLOW
            yield "last test", f"{self.test.when()}: {self.test.outcome()}", colour
        if self.rehearsal:
            # "last rehearsal" would not fit into the column.
            done, colour = self.rehearsal, "" if self.rehearsal.passed else _YELLOW
            verdict = "" if done.passed else "failed: "
            yield "rehearsal", f"{shown(done.time)}: {done.kernel}, {verdict}{done.result}", colour
        for note in self.notes:
            yield "note", note, ""
        for problem in self.problems:
            yield "problem", problem, _YELLOW if self.armed else _RED
        yield "next", self.next, _BOLD

    def _key(self) -> str:
        if not self.key:
            return "none" if self.encrypted else "none: dumps are plain text"
        return self.key + (f", expires {shown(self.key_expires)}" if self.key_expires else "")

    def _stick(self) -> str:
        """The line about the stick that is plugged in."""
        have = "free space unknown (mount it to see)"
        if self.stick_free is not None:
            have = f"{room.amount(self.stick_free)} free"
        dump = f" (a dump takes up to {room.amount(self.expected_dump)})"
        kind = self.stick_filesystem or "unknown file system"
        return f"{self.stick}, {kind}, {have}{dump * bool(self.expected_dump)}"
