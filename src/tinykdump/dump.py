# SPDX-License-Identifier: GPL-2.0-or-later
"""A dump as it stands on a stick: names, parts and sums. Text in, values out; no I/O here.

src/crash/lib.sh writes tinykdump/MACHINE/TIME, which is called TIME.partial until it is complete.
In it each stream is a row of parts, NAME.000, NAME.001 and so on, or NAME.gpg.000 where it is
encrypted, and SHA256SUMS has a line for each part that was written to its end. Anybody can have
written to a stick: names that are not these, or anything in them.
"""

import re
from pathlib import Path

TOP = "tinykdump"
PARTIAL = ".partial"
SUMS = "SHA256SUMS"
README = "README"

# What the crash side saves, and the file that it becomes; the small ones first. Where makedumpfile
# fails, the memory is there as a copy.
STREAMS = {
    "dmesg.txt": "dmesg.txt",
    "crash-kernel.txt": "crash-kernel.txt",
    "vmcore.flat": "vmcore",
    "vmcore": "vmcore",
}

_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z(-[0-9]+)?")
_PART = re.compile(rf"({'|'.join(map(re.escape, STREAMS))})(\.gpg)?\.([0-9]{{3,6}})")
_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def of_machine(stick: Path, machine: str) -> Path:
    """Where the dumps of a machine are on a stick that is mounted there."""
    return stick / TOP / machine


def is_dump(name: str) -> bool:
    """Whether a directory of that name is a dump's; those of one machine sort by time."""
    return bool(_NAME.fullmatch(name.removesuffix(PARTIAL)))


def is_complete(name: str) -> bool:
    """Whether the crash kernel has come to the end of a dump that is called so."""
    return not name.endswith(PARTIAL)


def part_name(stream: str, encrypted: bool, number: int) -> str:
    """The name of a stream's part; numbers begin with 0."""
    return f"{stream}{'.gpg' * encrypted}.{number:03d}"


def parse_part(name: str) -> tuple[str, bool, int] | None:
    """Stream, whether it is encrypted and number of a part, when it is the name of one."""
    match = _PART.fullmatch(name)
    if not match:
        return None
    found = match[1], bool(match[2]), int(match[3])
    return found if name == part_name(*found) else None


def parse_sums(text: str) -> dict[str, set[str]]:
    """Name -> SHA-256 of the lines of SHA256SUMS, as far as they can be understood.

    A name that stands there twice was written twice: a second try takes the names of the first.
    """
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line):
            found.setdefault(match[2], set()).add(match[1])
    return found
