# SPDX-License-Identifier: GPL-2.0-or-later
"""The format of a dump on a stick: names, parts and sums. Text in, values out; no I/O here.

src/crash/dump.sh writes tinykdump/MACHINE/TIME, which is called TIME.partial until it is complete.
Each stream in it is a series of parts, NAME.000, NAME.001 and so on (NAME.gpg.000 if encrypted),
and SHA256SUMS lists each part that was written completely. Anyone can have written to a stick, so
other names and any contents must be expected.

The dump of a crash on purpose has a file TEST: its id, and once the dump is saved, the time in
seconds since 1970 by the crash kernel's clock. A complete dump has a file STAGES: what the crash
kernel did, and when.
"""

import re
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from pathlib import Path

TOP = "tinykdump"
PARTIAL = ".partial"
SUMS = "SHA256SUMS"
README = "README"
TEST = "TEST"
STAGES = "STAGES"

# What a user calls the newest complete dump.
LATEST = "latest"

# Streams that the crash side saves, and the files that they are restored to, small ones first: the
# names are those of kdump, which crash(8)'s users and ABRT know. "vmcore" is a copy of the memory,
# made if makedumpfile fails.
LOG = "dmesg.txt"
STREAMS = {
    LOG: "vmcore-dmesg.txt",
    "crash-kernel.txt": "crash-kernel.txt",
    "vmcore.flat": "vmcore",
    "vmcore": "vmcore",
}

_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z(-[0-9]+)?")
_MACHINE = re.compile(r"[0-9a-f]{12}")
_PART = re.compile(rf"({'|'.join(map(re.escape, STREAMS))})(\.gpg)?\.([0-9]{{3,6}})")
_TEST = re.compile(r"([0-9a-f]{16})\n(?:([0-9]{1,12})\n)?")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")
# Two stages, one right after the other if the first try succeeded.
_MEMORY = re.compile(
    r"^\[([0-9]{1,9}\.[0-9]{2}) s\] saving the memory\n"
    r"\[([0-9]{1,9}\.[0-9]{2}) s\] the memory is written", re.MULTILINE,
)  # fmt: skip


def order(name: str) -> tuple[str, int]:
    """What the names of dumps sort by, from the oldest to the newest, also of several machines.

    The second dump of a second has a number.
    """
    start, _, number = name.removesuffix(PARTIAL).partition("-")
    return start, int(number or 0)


def time(name: str) -> datetime | None:
    """When a dump began, by the crash kernel's clock (UTC); None: it did not make that name.

    The first and the last year that datetime knows are not there in every local zone.
    """
    try:
        found = datetime.strptime(name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return found if MINYEAR < found.year < MAXYEAR else None


def of_machine(stick: Path, machine: str) -> Path:
    """Where the dumps of a machine are on a stick that is mounted there."""
    return stick / TOP / machine


def as_kdump(host: str, name: str) -> str:
    """The name that kdump gives the directory of such a dump: HOST-2026-11-23-03:38:08.

    (kdump.sh of kdump-utils.) Any other name than a dump's stays as it is.
    """
    if not is_dump(name):
        return name
    start, number = order(name)
    date = "-".join((start[:4], start[4:6], start[6:8]))
    clock = ":".join((start[9:11], start[11:13], start[13:15]))
    return "-".join((host, date, clock, *([str(number)] if number else [])))


def is_machine(name: str) -> bool:
    """Whether a directory of that name has the dumps of a machine (hardware.machine_name)."""
    return bool(_MACHINE.fullmatch(name))


def is_dump(name: str) -> bool:
    """Whether a directory of that name is a dump's; those of one machine sort by time."""
    return bool(_NAME.fullmatch(name.removesuffix(PARTIAL)))


def is_complete(name: str) -> bool:
    """Whether a dump directory of that name is complete."""
    return not name.endswith(PARTIAL)


def part_name(stream: str, encrypted: bool, number: int) -> str:
    """The name of a stream's part; numbers begin with 0."""
    return f"{stream}{'.gpg' * encrypted}.{number:03d}"


def parse_part(name: str) -> tuple[str, bool, int] | None:
    """Stream, whether it is encrypted, and number of a part; None for any other name."""
    match = _PART.fullmatch(name)
    if not match:
        return None
    found = match[1], bool(match[2]), int(match[3])
    return found if name == part_name(*found) else None


def parse_test(text: str) -> tuple[str, int | None] | None:
    """The id of a test, and when its dump was saved; None for any other text."""
    found = _TEST.fullmatch(text)
    return (found[1], int(found[2]) if found[2] else None) if found else None


def memory_seconds(stages: str) -> float:
    """How long the memory took, by the file STAGES; 0: it does not say, or a try failed."""
    found = _MEMORY.search(stages)
    return float(found[2]) - float(found[1]) if found else 0.0


def parse_sums(text: str) -> dict[str, set[str]]:
    """Name -> SHA-256 of the lines of SHA256SUMS; other lines are ignored.

    A name that is listed twice was written twice: a retry reuses the names of the first try.
    """
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line):
            found.setdefault(match[2], set()).add(match[1])
    return found
