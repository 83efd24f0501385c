# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the log of a crash kernel from the records of pstore. Pure: bytes in, values out.

Formats: Documentation/ABI/testing/pstore in the kernel. With CONFIG_PSTORE_KEXEC_CONSOLE there
are kexec-console records: one file of plain text, or several files that begin with a line
"kexec-console#ID PartN" and continue in the format of syslog(2). A kernel without it leaves dmesg
records, "Panic#1 PartN" or "Shutdown#1 PartN", where Part1 is the end of the log. With ramoops it
also leaves a console record, which replaces that of the crashed kernel.

A device that is plugged in can make the kernel log any text. This module trusts only what the
kernel itself writes: where a line begins, and whether the kernel or a program logged it.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tinykdump.clock import local, shown

# How the names of pstore's files begin, the best kind of record last.
_KINDS = ("dmesg-", "console-", "kexec-console-")
# A kernel that does not know the type of a record names it so, and does not unpack it.
_UNKNOWN = "unknown-"
_PACKED = ".enc.z"
# The limit of an unpacked record, in bytes: pstore's own buffers are a few KiB.
_LARGEST = 1 << 20

_PART = re.compile(
    r"(kexec-console(?:#[0-9a-f]{1,16})?|[A-Za-z ]{1,32}#\d{1,9}) Part(\d{1,3})(?:\n|\Z)"
)
_PRIORITY = re.compile(r"^<\d{1,4}>", re.MULTILINE)
# The kernel begins each line with priority (in records only), time and caller (if configured).
_LINE = re.compile(r"(?:<(\d{1,4})>)?\[ {0,11}(\d{1,10}\.\d{6})\](?:\[ {0,9}[TC]\d{1,10}\])? (.*)")
_STAGE = re.compile(r"tinykdump: \[\d{1,10}\.\d\d s\] (.*)")
# What src/crash says of the dump: when it began, how large it is, and when it was on the medium.
_COURSE = re.compile(
    r"tinykdump: (\[\d{1,10}\.\d\d s\] (?:saving the memory|saved as )"
    r"|the dump takes \d{1,9} MiB).*"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")


@dataclass(frozen=True)
class Boots:
    """When the machine booted, in seconds since 1970."""

    this: float
    previous: float | None = None  # None: not known


@dataclass(frozen=True)
class Record:
    """One file of pstore, unpacked, without control characters."""

    name: str
    text: str
    # It was written between these times, in seconds since 1970; they are equal if it is known when.
    since: float
    time: float

    @property
    def kind(self) -> int:
        """The kind of record, an index of _KINDS."""
        if self.name.startswith(_UNKNOWN):
            return len(_KINDS) - 1
        return next(n for n, prefix in enumerate(_KINDS) if self.name.startswith(prefix))

    @property
    def heading(self) -> str:
        """The heading, which all parts of a log share; empty for a stream of plain text."""
        match = _PART.match(self.text)
        return match[1] if match else ""

    @property
    def part(self) -> int:
        """The number of the part; 0 for a stream."""
        match = _PART.match(self.text)
        return int(match[2]) if match else 0

    @property
    def body(self) -> str:
        """The text without the heading."""
        return _PART.sub("", self.text, count=1) if self.part else self.text

    @property
    def names_its_log(self) -> bool:
        """Whether the heading is unique to one crash kernel."""
        return self.heading.startswith("kexec-console#")


@dataclass(frozen=True)
class CrashLog:
    """The log of one crash kernel."""

    raw: str  # with priorities if the records have them
    is_whole: bool  # False: from dmesg records, which a kernel that hangs does not write
    since: float = 0.0  # as in Record
    time: float = 0.0

    @property
    def text(self) -> str:
        """The log without priorities, for people."""
        return _PRIORITY.sub("", self.raw)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that src/crash reported; none if it did not start."""
        return tuple(text for _, text in _said(self.raw, _STAGE, by_kernel=False))

    @property
    def stage(self) -> str:
        """The last stage, or ""."""
        return self.stages[-1] if self.stages else ""

    @property
    def saved(self) -> bool:
        """Whether a complete dump was saved."""
        return any(stage.startswith("saved as ") for stage in self.stages)

    @property
    def verdict(self) -> str:
        """The result of the dump, in one line."""
        saved = [stage for stage in self.stages if stage.startswith("saved as ")]
        failed = [stage for stage in self.stages if stage.startswith("failed: ")]
        # The first failure is the reason; later ones follow from it.
        if saved:
            return ", but ".join([saved[-1], *failed[:1]])
        if failed:
            return failed[0]
        panics = [text for _, text in _said(self.raw, _PANIC, by_kernel=True)]
        ended = f"panicked ({panics[-1]})" if panics else "ended"
        if self.stages:
            return f"failed: the crash kernel {ended} after: {self.stage}"
        return f"failed: the crash kernel {ended} before its first stage"

    @property
    def rate(self) -> float:
        """Bytes that were saved in a second; 0: not known, or not at the first try."""
        course = [text for _, text in _said(self.raw, _COURSE, by_kernel=False)]
        numbers = [float(found) for text in course for found in _NUMBER.findall(text)[:1]]
        kinds = ["MiB" if text.endswith("MiB") else text.split("] ")[1] for text in course]
        if kinds != ["saving the memory", "MiB", "saved as"] or numbers[2] <= numbers[0]:
            return 0.0
        return numbers[1] * (1 << 20) / (numbers[2] - numbers[0])

    @property
    def when(self) -> str:
        """The time of the crash, or the time before which it happened."""
        text = shown(local(self.time))
        return text if self.since == self.time else f"before {text}"

    def ended_previous(self, boots: Boots) -> bool:
        """Whether this crash certainly ended the previous boot."""
        return boots.previous is not None and self.since >= boots.previous


def previous_boot(text: str) -> float | None:
    """When the previous boot began, from "journalctl --list-boots --utc"; None if not known.

    Each line has a number (0: this boot), an ID, and the times of the first and the last message:
    "-1 ID Wed 2026-11-25 17:38:02 UTC".
    """
    found = re.search(
        r"^ *-1 [0-9a-f]{32} \w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", text, re.MULTILINE
    )
    return datetime.fromisoformat(f"{found[1]}+00:00").timestamp() if found else None


def is_of_interest(name: str) -> bool:
    """Whether a file of that name can be from a crash kernel."""
    return name.startswith((*_KINDS, _UNKNOWN))


def record(name: str, data: bytes, modified: float, *, collected: bool,
           boots: Boots) -> Record | None:  # fmt: skip
    """Read a file of pstore; returns None if it cannot be from a crash kernel.

    ``modified`` is the file's time, ``collected`` whether it was moved out of pstore, as
    systemd-pstore does with every record at every boot.
    """
    known = not name.startswith(_UNKNOWN)
    # With ERST, a kernel that does not know the type cannot tell whether the record is packed.
    is_packed = name.endswith(_PACKED) or not (known or data.startswith(b"kexec-console"))
    found = Record(name, _clean(_unpack(data) if is_packed else data), 0.0, 0.0)
    if not found.text or not (known or found.heading.startswith("kexec-console")):
        return None
    is_dated = bool(found.part) or found.kind == 0
    since, time = _between(modified, boots, is_dated=is_dated, collected=collected)
    return replace(found, since=since, time=time)


def _between(modified: float, boots: Boots, *, is_dated: bool,
             collected: bool) -> tuple[float, float]:  # fmt: skip
    """Between which times a record was written.

    A stream records no time: its file has the time when pstore was mounted. A time after the start
    of this boot is wrong.
    """
    if modified >= boots.this:
        first = boots.previous if collected and boots.previous is not None else 0.0
        return first, boots.this
    modified = max(modified, 0.0)
    return (modified if is_dated else 0.0), modified


def _unpack(data: bytes) -> bytes:
    """Unpack raw deflate, which pstore uses; returns nothing for other data."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _LARGEST)
    except zlib.error:
        return b""


def _clean(data: bytes) -> str:
    """The text without control characters: it goes to root's terminal."""
    text = data.decode(errors="replace")
    return "".join(c for c in text if c.isprintable() or c in "\n\t").strip()


def newest(records: Iterable[Record]) -> CrashLog | None:
    """The log of the last crash kernel that left one, or None."""
    logs = [log for log in _logs(_once(records)) if _is_crash_kernels(log)]
    if not logs:
        return None
    last = max(logs, key=lambda log: (log[-1].time, log[0].kind))
    # One crash kernel can leave several logs.
    same = [log for log in logs if log is last or _stamps(log) & _stamps(last)]
    best = max(same, key=lambda log: (log[0].kind, log[-1].time))
    is_dmesg = best[0].kind == 0
    raw = _join(reversed(best) if is_dmesg else best)
    newer = best[-1]
    return CrashLog(raw, not is_dmesg, since=newer.since, time=newer.time)


def _once(records: Iterable[Record]) -> list[Record]:
    """Each text once, with the best of its names and the earliest of its times."""
    found: dict[str, Record] = {}
    for each in records:
        other = found.get(each.text, each)
        best = max(each, other, key=lambda one: one.kind)
        seen = min(each, other, key=lambda one: one.time)
        found[each.text] = replace(best, since=min(each.since, other.since), time=seen.time)
    return list(found.values())


def _is_crash_kernels(log: Sequence[Record]) -> bool:
    """Whether only crash kernels write this kind of record, or src/crash wrote to the log."""
    return log[0].kind == len(_KINDS) - 1 or bool(_stamps(log))


def _stamps(log: Iterable[Record]) -> set[tuple[str, str]]:
    """The stages with their times in microseconds, which no other crash kernel has."""
    return {said for each in log for said in _said(each.body, _STAGE, by_kernel=False)}


def _said(text: str, pattern: re.Pattern[str], *, by_kernel: bool) -> Iterator[tuple[str, str]]:
    """The time and the first group of each message that matches ``pattern``.

    All lines of a message have the time of its first line; the later ones can be quoted from a
    device. Without priorities, a line is the first one of its message only if the line before it
    is known and has another time.
    """
    before = ""
    for line in text.split("\n"):
        match = _LINE.fullmatch(line)
        priority, stamp, message = match.groups() if match else ("", "", "")
        is_first = stamp != before and bool(priority or before)
        # Messages that programs write to /dev/kmsg never have the kernel's facility, 0.
        is_theirs = not priority or (int(priority) < 8) == by_kernel
        found = pattern.fullmatch(message)
        if found and is_first and is_theirs:
            yield stamp, found[1].rstrip()
        before = stamp


def _logs(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Group the records into logs, each in the order of its parts.

    If the heading is not unique to a log, each log starts with its first part, and its parts were
    written one after the other.
    """
    log: list[Record] = []
    for each in sorted(records, key=_order):
        if log and (each.kind, each.heading) == (log[0].kind, log[0].heading):
            if each.part > log[-1].part:
                log.append(each)
                continue
            if each.names_its_log:  # the same part, written again with more text
                log[-1] = each
                continue
        if log:
            yield log
        log = [each]
    if log:
        yield log


def _order(each: Record) -> tuple[int, str, int, float, int, int]:
    first = each.part if each.names_its_log else 0
    return (each.kind, each.heading, first, each.time, each.part, len(each.text))


def _join(records: Iterable[Record]) -> str:
    return "\n".join(each.body.strip("\n") for each in records)
