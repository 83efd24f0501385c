# SPDX-License-Identifier: GPL-2.0-or-later
"""Read the file behind QEMU's flash, where OVMF keeps its variables.

Formats: MdeModulePkg/Include/Guid/VariableFormat.h of edk2. A variable that is changed or deleted
stays where it is, with another state, until the firmware runs out of room and collects the rest.
"""

import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# start, state, reserved, attributes, monotonic count, time, key index, sizes of name and data,
# and the GUID of the vendor
HEADER = struct.Struct("<HBBIQ16sIII16s")
START = 0x55AA
ADDED = 0x3F
# LINUX_EFI_CRASH_GUID
CRASH = uuid.UUID("cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0")


@dataclass(frozen=True)
class Variable:
    name: str
    size: int


def _variables(path: Path) -> Iterator[tuple[int, Variable]]:
    """Those of pstore, with their state, oldest first."""
    data = path.read_bytes()
    start = data.find(CRASH.bytes_le)
    while start >= 0:
        name_at = start + 16
        offset = name_at - HEADER.size
        magic, state, _, _, _, _, _, name_size, size, _ = HEADER.unpack_from(data, offset)
        if magic == START:
            name = data[name_at : name_at + name_size].decode("utf-16-le").rstrip("\0")
            yield state, Variable(name, size)
        start = data.find(CRASH.bytes_le, name_at)


def crash_records(path: Path) -> list[Variable]:
    """The variables of pstore that are there, oldest first."""
    return [variable for state, variable in _variables(path) if state == ADDED]


def written(path: Path) -> set[str]:
    """The names of the crash kernels' records, also of those that were erased since."""
    names = (variable.name for _, variable in _variables(path))
    return {name for name in names if name.startswith("dump-type9-")}


def call(name: str) -> int:
    """Which one it was of the calls in its boot that may change the store."""
    return int(name.split("-")[3])


def consoles(path: Path) -> list[Variable]:
    return [each for each in crash_records(path) if each.name.startswith("dump-type9-")]
