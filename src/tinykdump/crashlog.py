# SPDX-License-Identifier: GPL-2.0-or-later
"""What a crash kernel said, from the records that pstore kept. Text in, values out; no I/O here.

Formats: Documentation/ABI/testing/pstore in the kernel. With CONFIG_PSTORE_KEXEC_CONSOLE there
are kexec-console records: one file of plain text, or several that begin with a line
"kexec-console PartN" and go on in the format of syslog(2). A kernel without it leaves dmesg
records, "Panic#1 PartN" or "Shutdown#1 PartN", where Part1 is the end of the log, and where
ramoops is the backend a console record that takes the place of the crashed kernel's.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# What pstore's files are called here, the best ones last.
_KINDS = ("dmesg-", "console-", "kexec-console-")

# Records of one crash are not further apart than this (in seconds), also with slow firmware
# and with a backend that knows no time: its records are as old as the mount.
_ONE_CRASH = 600.0

_PART = re.compile(r"(kexec-console|[A-Za-z ]+#\d+) Part(\d+)\n?")
_PRIORITY = re.compile(r"^<\d+>", re.MULTILINE)
_STAGE = re.compile(r"tinykdump: \[[0-9. ]+s\] (.*)")
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")


@dataclass(frozen=True)
class Record:
    """One file of pstore."""

    name: str
    time: float  # seconds since 1970, as the backend says; of the mount where it knows none
    text: str

    @property
    def kind(self) -> int:
        """An index of _KINDS."""
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


@dataclass(frozen=True)
class CrashLog:
    """The log of one crash kernel."""

    text: str
    is_whole: bool  # False: made from dmesg records, which a hang does not leave

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that src/crash reported; none when it never came that far."""
        return tuple(text.rstrip() for text in _STAGE.findall(self.text))

    @property
    def stage(self) -> str:
        """The last of them, or ""."""
        return self.stages[-1] if self.stages else ""

    @property
    def verdict(self) -> str:
        """What became of the dump, in one line."""
        for stage in reversed(self.stages):
            if stage.startswith(("failed: ", "saved as ")):
                return stage
        panics = _PANIC.findall(self.text)
        ended = f"panicked ({panics[-1].strip()})" if panics else "ended"
        if self.stages:
            return f"failed: the crash kernel {ended} after: {self.stage}"
        return f"failed: the crash kernel {ended} before its first stage"


def is_of_interest(name: str) -> bool:
    """Whether a file of that name can be a crash kernel's. ".enc.z" is one that did not unpack."""
    return name.startswith(_KINDS) and not name.endswith(".enc.z")


def newest(records: Sequence[Record]) -> CrashLog | None:
    """The log of the last crash kernel that left something, or None."""
    logs = [log for log in _logs(records) if _is_crash_kernels(log)]
    last = max((log[-1].time for log in logs), default=0.0)
    recent = [log for log in logs if log[-1].time >= last - _ONE_CRASH]
    if not recent:
        return None
    best = max(recent, key=lambda log: (log[0].kind, log[-1].time))
    is_dmesg = _KINDS[best[0].kind] == "dmesg-"
    return CrashLog(_join(reversed(best) if is_dmesg else best), is_whole=not is_dmesg)


def _is_crash_kernels(log: Iterable[Record]) -> bool:
    """Whether it is of a type that only crash kernels write, or has what only src/crash says."""
    return any(
        _KINDS[record.kind] == "kexec-console-" or _STAGE.search(record.text) for record in log
    )


def _logs(records: Sequence[Record]) -> Iterator[list[Record]]:
    """The records put together to logs, each in the order of its parts.

    Each log starts with its first part, and its parts were written one after the other.
    """
    log: list[Record] = []
    for record in sorted(records, key=lambda each: (each.kind, each.heading, each.time, each.part)):
        if log and not (
            (record.kind, record.heading) == (log[0].kind, log[0].heading)
            and record.part > log[-1].part
        ):
            yield log
            log = []
        log.append(record)
    if log:
        yield log


def _join(records: Iterable[Record]) -> str:
    text = "\n".join(record.body.strip("\n") for record in records)
    return _PRIORITY.sub("", text)
