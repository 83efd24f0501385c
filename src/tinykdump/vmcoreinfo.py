# SPDX-License-Identifier: GPL-2.0-or-later
"""What a vmcore says of itself: vmcoreinfo, which needs no symbols. Bytes in, values out.

A vmcore is hostile input: anyone who can write to the stick can encrypt a forged one. Formats:
makedumpfile's disk_dump_header and kdump_sub_header (diskdump_mod.h in its sources), which begin
two blocks, or ELF with a note VMCOREINFO (Documentation/admin-guide/kdump/vmcoreinfo.rst in Linux).
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

# Reads so many bytes at that offset of the vmcore, or fewer at its end.
Read = Callable[[int, int], bytes]

_LARGEST = 1 << 16  # bytes; the kernel's own limit is a page
_FARTHEST = 1 << 46  # bytes: makedumpfile writes no file as large as 64 TiB

_KDUMP = b"KDUMP   "
_BLOCK_SIZE = struct.Struct("<428xi")
_SUB_HEADER = struct.Struct("<32xqQ")  # offset_vmcoreinfo, size_vmcoreinfo

_ELF = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_ELF_HEADER = struct.Struct("<32xQ14xHH")  # e_phoff, e_phentsize, e_phnum
_PROGRAM_HEADER = struct.Struct("<I4xQ16xQ")  # p_type, p_offset, p_filesz
_NOTE = struct.Struct("<III")  # sizes of name and description, and the type
_PT_NOTE = 4

_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}")
_BUILD_ID = re.compile(r"(?:[0-9a-f]{2}){8,32}")


@dataclass(frozen=True)
class Info:
    """The lines NAME=VALUE of vmcoreinfo."""

    values: dict[str, str]

    @property
    def release(self) -> str:
        """The version of the kernel, as uname -r says it; empty if it is not valid."""
        return _valid(_RELEASE, self.values.get("OSRELEASE", ""))

    @property
    def build_id(self) -> str:
        """The build ID of its vmlinux; empty if it is not valid (kernels before 5.9 have none)."""
        return _valid(_BUILD_ID, self.values.get("BUILD-ID", ""))

    def number(self, name: str) -> int | None:
        """NUMBER, LENGTH, SIZE, OFFSET (decimal) or SYMBOL (hexadecimal); None if missing."""
        text = self.values.get(name, "")
        base = 16 if name.startswith("SYMBOL(") or text.startswith("0x") else 10
        try:
            return int(text, base) if len(text) <= 32 else None
        except ValueError:
            return None


def _valid(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else ""


def parse(text: bytes) -> Info:
    """vmcoreinfo from its text."""
    lines = text[:_LARGEST].decode("ascii", errors="replace").splitlines()
    pairs = (line.partition("=") for line in lines)
    return Info({name: value for name, equals, value in pairs if equals})


def find(read: Read) -> Info | None:
    """vmcoreinfo of a vmcore; None if it has none or is in another format."""

    def near(at: int, size: int) -> bytes:  # pread(2) fails at some other offsets
        return read(at, size) if 0 <= at < _FARTHEST else b""

    start = read(0, 512)
    try:
        text = _of_kdump(near, start) if start.startswith(_KDUMP) else _of_elf(near, start)
    except (struct.error, ValueError, OverflowError):
        return None
    return parse(text) if text else None


def _of_kdump(read: Read, start: bytes) -> bytes:
    (block,) = _BLOCK_SIZE.unpack_from(start)
    place, size = _SUB_HEADER.unpack_from(read(block, _SUB_HEADER.size))
    return read(place, min(size, _LARGEST))


def _of_elf(read: Read, start: bytes) -> bytes:
    if not start.startswith(_ELF):
        return b""
    table, entry, count = _ELF_HEADER.unpack_from(start)
    for number in range(min(count, 64)):
        kind, place, size = _PROGRAM_HEADER.unpack_from(read(table + number * entry, entry))
        if kind == _PT_NOTE:
            return _note(read(place, min(size, 1 << 20)))
    return b""


def _note(notes: bytes) -> bytes:
    """The description of the note VMCOREINFO. Each part is padded to four bytes."""
    at = 0
    while at + _NOTE.size <= len(notes):
        name, description, _ = _NOTE.unpack_from(notes, at)
        name_at = at + _NOTE.size
        text_at = name_at + (name + 3 & ~3)
        if notes[name_at : name_at + name].rstrip(b"\0") == b"VMCOREINFO":
            return notes[text_at : text_at + description]
        at = text_at + (description + 3 & ~3)
    return b""
