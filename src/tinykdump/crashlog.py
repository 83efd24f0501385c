# SPDX-License-Identifier: GPL-2.0-or-later
"""What a crash kernel said, from the records that pstore kept. Bytes in, values out; no I/O here.

Formats: Documentation/ABI/testing/pstore in the kernel. With CONFIG_PSTORE_KEXEC_CONSOLE there
are kexec-console records: one file of plain text, or several that begin with a line
"kexec-console#ID PartN" and go on in the format of syslog(2). A kernel without it leaves dmesg
records, "Panic#1 PartN" or "Shutdown#1 PartN", where Part1 is the end of the log, and where
ramoops is the backend a console record that takes the place of the crashed kernel's.

Anybody who can plug in a device can have the kernel log a text of theirs. What is believed is
where a line begins and who has logged it, both of which the kernel writes.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

# What pstore's files are called here, the best ones last.
_KINDS = ("dmesg-", "console-", "kexec-console-")
# A kernel that does not know the type of a record says so, and leaves it packed.
_UNKNOWN = "unknown-"
_PACKED = ".enc.z"
# What a record unpacks to at most, in bytes: pstore's own buffers are a few KiB.
_LARGEST = 1 << 20

_PART = re.compile(
    r"(kexec-console(?:#[0-9a-f]{1,16})?|[A-Za-z ]{1,32}#\d{1,9}) Part(\d{1,3})(?:\n|\Z)"
)
_PRIORITY = re.compile(r"^<\d{1,4}>", re.MULTILINE)
# As the kernel begins each line: priority (in records only), time, caller (where configured).
_LINE = re.compile(r"(?:<(\d{1,4})>)?\[ {0,11}(\d{1,10}\.\d{6})\](?:\[ {0,9}[TC]\d{1,10}\])? (.*)")
_STAGE = re.compile(r"tinykdump: \[\d{1,10}\.\d\d s\] (.*)")
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")


@dataclass(frozen=True)
class Boots:
    """When this machine was started, in seconds since 1970."""

    this: float
    previous: float | None = None  # None: nobody has written it down


@dataclass(frozen=True)
class Record:
    """One file of pstore, unpacked, with nothing in it that a terminal would obey."""

    name: str
    text: str
    # It was written between these two, in seconds since 1970. They are one where it is known.
    since: float
    time: float

    @property
    def kind(self) -> int:
        """An index of _KINDS."""
        if self.name.startswith(_UNKNOWN):
            return len(_KINDS) - 1
        return next(n for n, prefix in enumerate(_KINDS) if self.name.startswith(prefix))

    @property
    def heading(self) -> str:
        """What the parts of one log have in common; empty for the plain text of a stream."""
        match = _PART.match(self.text)
        return match[1] if match else ""

    @property
    def part(self) -> int:
        """The number of the part, 0 for a stream."""
        match = _PART.match(self.text)
        return int(match[2]) if match else 0

    @property
    def body(self) -> str:
        """The text without the line that names the part."""
        return _PART.sub("", self.text, count=1) if self.part else self.text

    @property
    def names_its_log(self) -> bool:
        """Whether the heading is that of one crash kernel alone."""
        return self.heading.startswith("kexec-console#")


@dataclass(frozen=True)
class CrashLog:
    """The log of one crash kernel."""

    raw: str  # with the priorities, where the records have them
    is_whole: bool  # False: made from dmesg records, which a hang does not leave
    since: float = 0.0  # see Record
    time: float = 0.0

    @property
    def text(self) -> str:
        """For people."""
        return _PRIORITY.sub("", self.raw)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that src/crash reported; none when it never came that far."""
        return tuple(text for _, text in _said(self.raw, _STAGE, by_kernel=False))

    @property
    def stage(self) -> str:
        """The last of them, or ""."""
        return self.stages[-1] if self.stages else ""

    @property
    def verdict(self) -> str:
        """What became of the dump, in one line."""
        saved = [stage for stage in self.stages if stage.startswith("saved as ")]
        failed = [stage for stage in self.stages if stage.startswith("failed: ")]
        # The first failure is the reason; what fails after it, fails for the same one.
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
    def when(self) -> str:
        """The time of the crash, as well as it is known."""
        text = f"{datetime.fromtimestamp(self.time, UTC):%Y-%m-%d %H:%M:%S} UTC"
        return text if self.since == self.time else f"before {text}"

    def ended_previous(self, boots: Boots) -> bool:
        """Whether it is for certain the crash that ended the boot before this one."""
        return boots.previous is not None and self.since >= boots.previous


def previous_boot(text: str) -> float | None:
    """When the boot before this one began, from "journalctl --list-boots --utc".

    Its lines have a number, 0 for this boot, an ID, and the times of the first and the last
    message, as in "-1 ID Wed 2026-11-25 17:38:02 UTC". None where the journal is not kept.
    """
    found = re.search(
        r"^ *-1 [0-9a-f]{32} \w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", text, re.MULTILINE
    )
    return datetime.fromisoformat(f"{found[1]}+00:00").timestamp() if found else None


def is_of_interest(name: str) -> bool:
    """Whether a file of that name can be a crash kernel's."""
    return name.startswith((*_KINDS, _UNKNOWN))


def record(name: str, data: bytes, modified: float, *, collected: bool,
           boots: Boots) -> Record | None:  # fmt: skip
    """A file of pstore; None where nothing in it can be a crash kernel's.

    ``modified`` is the file's time, ``collected`` whether it was moved out of pstore, which
    systemd-pstore does with every record at every boot.
    """
    known = not name.startswith(_UNKNOWN)
    # ERST does not tell a kernel that does not know the type whether it is packed.
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

    A stream has no time: its file is as old as the first look at it. Nor is one believed that
    this boot is older than.
    """
    if modified >= boots.this:
        first = boots.previous if collected and boots.previous is not None else 0.0
        return first, boots.this
    modified = max(modified, 0.0)
    return (modified if is_dated else 0.0), modified


def _unpack(data: bytes) -> bytes:
    """Raw deflate, as pstore packs; nothing where it is not that."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _LARGEST)
    except zlib.error:
        return b""


def _clean(data: bytes) -> str:
    """Without control characters: the text goes to root's terminal."""
    text = data.decode(errors="replace")
    return "".join(c for c in text if c.isprintable() or c in "\n\t").strip()


def newest(records: Iterable[Record]) -> CrashLog | None:
    """The log of the last crash kernel that left something, or None."""
    logs = [log for log in _logs(_once(records)) if _is_crash_kernels(log)]
    if not logs:
        return None
    last = max(logs, key=lambda log: (log[-1].time, log[0].kind))
    # The same crash kernel can have left more than one log of itself.
    same = [log for log in logs if log is last or _stamps(log) & _stamps(last)]
    best = max(same, key=lambda log: (log[0].kind, log[-1].time))
    is_dmesg = best[0].kind == 0
    raw = _join(reversed(best) if is_dmesg else best)
    newer = best[-1]
    return CrashLog(raw, not is_dmesg, since=newer.since, time=newer.time)


def _once(records: Iterable[Record]) -> list[Record]:
    """Each text once, under its best name, at the first time that it was seen."""
    found: dict[str, Record] = {}
    for each in records:
        other = found.get(each.text, each)
        best = max(each, other, key=lambda one: one.kind)
        seen = min(each, other, key=lambda one: one.time)
        found[each.text] = replace(best, since=min(each.since, other.since), time=seen.time)
    return list(found.values())


def _is_crash_kernels(log: Sequence[Record]) -> bool:
    """Whether it is of a type that only crash kernels write, or has what only src/crash says."""
    return log[0].kind == len(_KINDS) - 1 or bool(_stamps(log))


def _stamps(log: Iterable[Record]) -> set[tuple[str, str]]:
    """What no two crash kernels have in common: their stages, to the microsecond."""
    return {said for each in log for said in _said(each.body, _STAGE, by_kernel=False)}


def _said(text: str, pattern: re.Pattern[str], *, by_kernel: bool) -> Iterator[tuple[str, str]]:
    """Time and what ``pattern`` finds, of each message that it fits.

    A message can have several lines, all with the time of the first. What comes after that one
    is quoted, and can be anything. Without priorities nothing tells that from a line that
    stands alone but the line before, so that has to be there.
    """
    before = ""
    for line in text.split("\n"):
        match = _LINE.fullmatch(line)
        priority, stamp, message = match.groups() if match else ("", "", "")
        is_first = stamp != before and bool(priority or before)
        # /dev/kmsg gives nobody the kernel's facility, which is 0.
        is_theirs = not priority or (int(priority) < 8) == by_kernel
        found = pattern.fullmatch(message)
        if found and is_first and is_theirs:
            yield stamp, found[1].rstrip()
        before = stamp


def _logs(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records put together to logs, each in the order of its parts.

    Where the heading does not say whose they are: each log starts with its first part, and its
    parts were written one after the other.
    """
    log: list[Record] = []
    for each in sorted(records, key=_order):
        if log and (each.kind, each.heading) == (log[0].kind, log[0].heading):
            if each.part > log[-1].part:
                log.append(each)
                continue
            if each.names_its_log:  # it was written again, with more in it
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
