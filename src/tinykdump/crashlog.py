# SPDX-License-Identifier: GPL-2.0-or-later
"""What a crash kernel said, from the records that pstore kept. Text in, values out; no I/O here.

Formats: Documentation/ABI/testing/pstore in the kernel. With CONFIG_PSTORE_KEXEC_CONSOLE there
are kexec-console records: one file of plain text, or several that begin with a line
"kexec-console PartN" and go on in the format of syslog(2). A kernel without it leaves dmesg
records, "Panic#1 PartN" or "Shutdown#1 PartN", where Part1 is the end of the log.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PART = re.compile(r"(kexec-console|[A-Za-z]+#\d+) Part(\d+)")
_PRIORITY = re.compile(r"^<\d+>", re.MULTILINE)
_STAGE = re.compile(r"tinykdump: \[[0-9. ]+s\] (.*)")


@dataclass(frozen=True)
class Record:
    """One file of pstore."""

    name: str
    time: float  # seconds since 1970, as the backend says; 0 where it knows none
    text: str

    @property
    def part(self) -> int:
        """The number of the part, 0 for the plain text of a stream."""
        match = _PART.match(self.text)
        return int(match[2]) if match else 0

    @property
    def is_console(self) -> bool:
        """Whether it is of the type that only a crash kernel writes."""
        return self.name.startswith("kexec-console-")

    @property
    def body(self) -> str:
        """The text without the line that names the part."""
        return self.text.partition("\n")[2] if self.part else self.text


@dataclass(frozen=True)
class CrashLog:
    """The log of one crash kernel."""

    text: str
    is_whole: bool  # False: made from dmesg records, which a hang does not leave

    @property
    def stage(self) -> str:
        """The last stage that src/crash reported, or "" when it never came that far."""
        stages = _STAGE.findall(self.text)
        return str(stages[-1]) if stages else ""


def newest(records: Sequence[Record]) -> CrashLog | None:
    """The log of the last crash kernel that left something, or None."""
    consoles = [record for record in records if record.is_console]
    if consoles:
        return CrashLog(_join(_last_boot(consoles)), is_whole=True)
    ours = [record for record in records if _STAGE.search(record.text)]
    if not ours:
        return None
    last = max(ours, key=lambda record: record.time)
    same = [record for record in records if record.time == last.time]
    return CrashLog(_join(sorted(same, key=lambda record: -record.part)), is_whole=False)


def _last_boot(consoles: Sequence[Record]) -> Sequence[Record]:
    """The records from the last Part1 on; each crash kernel starts with one."""
    ordered = sorted(consoles, key=lambda record: (record.time, record.part))
    starts = [number for number, record in enumerate(ordered) if record.part <= 1]
    return ordered[starts[-1] if starts else 0 :]


def _join(records: Sequence[Record]) -> str:
    text = "\n".join(record.body.strip("\n") for record in records)
    return _PRIORITY.sub("", text)
