# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes placeholders for libraries that programs are linked with, but that no dump uses.

gpg is linked with SQLite and readline, makedumpfile with elfutils. These would cost megabytes
in the crash kernel for trust databases, prompts and debugging information, which a dump does
not use. ld.so still needs every library and every symbol. A placeholder is a shared object of
a few pages that exports only the symbols that the image's programs need. If a program calls
one of its functions after all, the function traps, and SIGILL ends the process.

Formats: System V ABI (ELF-64, DT_HASH) and the GNU symbol versions of the Linux Standard
Base, chapter 10.7. Pure: no I/O.
"""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tinykdump.architecture import MACHINES
from tinykdump.image.elf import Symbol

# SONAME up to the first dot or version -> why no dump needs it.
UNUSED = {
    "libsqlite3": "gpg's trust-on-first-use database; recipients are given as files",
    "libreadline": "gpg's prompts; it runs with --batch",
    "libbz2": "gpg's BZIP2 packets; it runs with --compress-algo none",
    "libdw": "makedumpfile -x and -g; it runs on the kernel's vmcoreinfo",
}

_ALIGN = 0x10000  # of segments: the largest page size
_CODE, _DATA = 1, 2  # symbols' section numbers; any number but 0 means "defined"


def is_unused(soname: str) -> bool:
    """Whether no dump uses that library."""
    return soname.split(".so", 1)[0] in UNUSED


def can_make(machine: str) -> bool:
    """Whether shared_object() supports that ELF machine."""
    return machine in MACHINES


@dataclass(frozen=True)
class _Table:
    """A string table (.dynstr) and the offset of each string in it."""

    data: bytes
    offsets: dict[str, int]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "_Table":
        data, offsets = b"\0", {"": 0}
        for text in texts:
            if text not in offsets:
                offsets[text] = len(data)
                data += text.encode() + b"\0"
        return cls(data, offsets)


def elf_hash(name: str) -> int:
    """The hash of DT_HASH and of symbol versions (System V ABI, figure 5-13)."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value


def _version_definitions(soname: str, versions: list[str], strings: _Table) -> bytes:
    """.gnu.version_d: the file's own name as number 1, then ``versions`` from number 2."""
    names = [soname, *versions]
    records = b""
    for index, name in enumerate(names, start=1):
        flags = 1 if index == 1 else 0  # VER_FLG_BASE
        step = 28 if index < len(names) else 0
        records += struct.pack("<HHHHIII", 1, flags, index, 1, elf_hash(name), 20, step)
        records += struct.pack("<II", strings.offsets[name], 0)
    return records


def _hash_table(names: list[str]) -> bytes:
    """DT_HASH with one bucket for each symbol; ``names`` are those of symbols 1, 2, ..."""
    buckets, chains = [0] * max(1, len(names)), [0] * (len(names) + 1)
    for number, name in enumerate(names, start=1):
        bucket = elf_hash(name) % len(buckets)
        chains[number], buckets[bucket] = buckets[bucket], number
    words = [len(buckets), len(chains), *buckets, *chains]
    return struct.pack(f"<{len(words)}I", *words)


def _symbol_table(
    wanted: list[Symbol], strings: _Table, functions: tuple[int, int], data: int
) -> bytes:
    """.dynsym: all functions have the address and size in ``functions``; data is at ``data``."""
    entries = [bytes(24)]
    for symbol in wanted:
        kind, section, (where, size) = 2, _CODE, functions
        if symbol.is_data:
            kind, section, where, size = 1, _DATA, data, symbol.size
            data += _rounded(symbol.size)
        entries.append(struct.pack("<IBBHQQ", strings.offsets[symbol.name], 0x10 | kind, 0,
                                   section, where, size))  # fmt: skip
    return b"".join(entries)


def _dynamic_section(places: Mapping[str, int], soname: int, strings: int, versions: int) -> bytes:
    """.dynamic: the tables' addresses, the offset of the name, and the sizes of two tables."""
    tags = [
        (14, soname),  # DT_SONAME
        (4, places["hash"]),  # DT_HASH
        (5, places["strings"]),  # DT_STRTAB
        (6, places["symtab"]),  # DT_SYMTAB
        (10, strings),  # DT_STRSZ
        (11, 24),  # DT_SYMENT
        (0x6FFFFFF0, places["versym"]),  # DT_VERSYM
        (0x6FFFFFFC, places["verdef"]),  # DT_VERDEF
        (0x6FFFFFFD, versions),  # DT_VERDEFNUM
        (0, 0),  # DT_NULL
    ]
    return b"".join(struct.pack("<QQ", *tag) for tag in tags)


def _headers(machine: int, text: int, dynamic: tuple[int, int, int], data: int) -> bytes:
    """The ELF and program headers of two segments: one of ``text`` bytes, and one from the
    dynamic section (its offset, address and size) to the address ``data``. Of the second, only
    the dynamic section is in the file."""
    offset, address, size = dynamic

    def segment(kind: int, flags: int, place: tuple[int, int], sizes: tuple[int, int]) -> bytes:
        alignment = _ALIGN if kind == 1 else 16
        return struct.pack("<IIQQQQQQ", kind, flags, *place, place[1], *sizes, alignment)

    return b"".join(
        (
            struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, machine, 1, 0, 64, 0, 0,
                        64, 56, 4, 64, 0, 0),
            segment(1, 5, (0, 0), (text, text)),  # PT_LOAD, R X
            segment(1, 6, (offset, address), (size, data - address)),  # PT_LOAD, RW
            segment(2, 6, (offset, address), (size, size)),  # PT_DYNAMIC
            segment(0x6474E551, 6, (0, 0), (0, 0)),  # PT_GNU_STACK: not executable
        )
    )  # fmt: skip


def _rounded(size: int) -> int:
    return (size + 15) & ~15


def shared_object(machine: str, soname: str, symbols: Iterable[Symbol]) -> bytes:
    """A shared object named ``soname`` that exports ``symbols``, whose functions trap.

    A symbol may occur with several versions. ``machine`` is one for which can_make() is true.
    """
    wanted = sorted(set(symbols), key=lambda symbol: (symbol.name, symbol.version))
    versions = sorted({symbol.version for symbol in wanted if symbol.version})
    strings = _Table.of([soname, *versions, *(symbol.name for symbol in wanted)])
    number, trap = MACHINES[machine].number, MACHINES[machine].trap
    numbers = [2 + versions.index(symbol.version) if symbol.version else 1 for symbol in wanted]
    tables = {
        "symtab": bytes(24 * (len(wanted) + 1)),  # filled in below, when addresses are known
        "strings": strings.data,
        "hash": _hash_table([symbol.name for symbol in wanted]),
        "versym": struct.pack(f"<{len(wanted) + 1}H", 0, *numbers),
        "verdef": _version_definitions(soname, versions, strings),
        "code": trap * (16 // len(trap)),
    }

    # A read-only, executable segment holds the headers, the tables and the traps. A writable one
    # holds the dynamic section and then the data symbols, which are zeroes and not in the file.
    end, places = 64 + 4 * 56, {}
    for name, content in tables.items():
        places[name] = _rounded(end)
        end = places[name] + len(content)
    offset = _rounded(end)
    address = offset + _ALIGN  # the same offset within a page in the file and in memory
    dynamic = _dynamic_section(
        places, strings.offsets[soname], len(strings.data), 1 + len(versions)
    )
    data = address + len(dynamic)
    tables["symtab"] = _symbol_table(wanted, strings, (places["code"], len(trap)), data)
    data += sum(_rounded(symbol.size) for symbol in wanted if symbol.is_data)

    image = bytearray(offset + len(dynamic))
    headers = _headers(number, end, (offset, address, len(dynamic)), data)
    for place, content in (
        (0, headers), *((places[name], tables[name]) for name in tables), (offset, dynamic),
    ):  # fmt: skip
        image[place : place + len(content)] = content
    return bytes(image)
