# SPDX-License-Identifier: GPL-2.0-or-later
"""Read the file behind QEMU's acpi-erst device (hw/acpi/erst.c there)."""

import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

MAGIC = int.from_bytes(b"ERSTSTOR", "little")
# magic, record_size, storage_offset, version, reserved, record_count
HEADER = struct.Struct("<QIIHHI")
# A common platform error record: its header, and one section descriptor.
RECORD_HEADER_SIZE = 128
SECTION_TYPE_OFFSET = RECORD_HEADER_SIZE + 16
DATA_OFFSET = RECORD_HEADER_SIZE + 72

DMESG = uuid.UUID("c197e04e-d545-4a70-9c17-a5549419eb12")
DMESG_Z = uuid.UUID("4f118707-04dd-4055-b5dd-956d34ddfac6")
KEXEC_CONSOLE = uuid.UUID("2d693cd6-1555-4882-92eb-11929791f4e3")
KEXEC_CONSOLE_Z = uuid.UUID("021788f7-c7f9-4922-9de4-68b2bc0587a4")
CONSOLES = (KEXEC_CONSOLE, KEXEC_CONSOLE_Z)


@dataclass(frozen=True)
class Record:
    id: int
    # Where in the file
    offset: int
    section: uuid.UUID
    size: int


def records(path: Path) -> list[Record]:
    data = path.read_bytes()
    magic, record_size, storage, _, _, count = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError(f"{path} was not formatted by QEMU")
    # Slots are counted from the start of the file, the header's included.
    slots = len(data) // record_size
    found = []
    for slot, id_ in enumerate(struct.unpack_from(f"<{slots}Q", data, HEADER.size)):
        if id_ in (0, 2**64 - 1) or slot * record_size < storage:
            continue
        offset = slot * record_size
        section = uuid.UUID(bytes_le=data[offset + SECTION_TYPE_OFFSET :][:16])
        (length,) = struct.unpack_from("<I", data, offset + 20)
        found.append(Record(id_, offset, section, length - DATA_OFFSET))
    if len(found) != count:
        raise ValueError(f"{path}: {len(found)} records found, {count} counted by QEMU")
    return found


def change_section(path: Path, record: Record, section: uuid.UUID) -> None:
    """Turn a record into one of another type, as if another kernel had written it."""
    with path.open("r+b") as stream:
        stream.seek(record.offset + SECTION_TYPE_OFFSET)
        stream.write(section.bytes_le)


def damage(path: Path, record: Record) -> None:
    """Have the device refuse to read it: its length is less than that of its header."""
    with path.open("r+b") as stream:
        stream.seek(record.offset + 20)
        stream.write(struct.pack("<I", 0))


def writes(path: Path) -> int:
    """How often the kernel that wrote the newest record has written.

    The upper half of an ID is the time of the first one; each record, of any type, whether the
    store took it or not, then has the next number (cper_next_record_id() in
    drivers/firmware/efi/cper.c).
    """
    return max(record.id for record in records(path)) & 0xFFFFFFFF


def consoles(path: Path) -> list[Record]:
    return [record for record in records(path) if record.section in CONSOLES]
