# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes small ELF files from values, so that tests need neither binary files nor a compiler."""

import gzip
import lzma
import struct
import subprocess
from collections.abc import Iterable

_X86_64 = 62
_PAGE = 0x1000


def _header(
    kind: int, *, program_headers: int = 0, sections_at: int = 0, sections: int = 0
) -> bytes:
    return struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", kind, _X86_64, 1, 0, 64 if program_headers else 0,
        sections_at, 0, 64, 56, program_headers, 64, sections, max(0, sections - 1),
    )  # fmt: skip


def modinfo(tags: Iterable[tuple[str, str]]) -> bytes:
    """The contents of a .modinfo section."""
    return b"".join(f"{tag}={value}\0".encode() for tag, value in tags)


def module(tags: Iterable[tuple[str, str]]) -> bytes:
    """A .ko with only a .modinfo section."""
    text = modinfo(tags)
    names = b"\0.modinfo\0.shstrtab\0"
    body = text + names

    def section(name: int, kind: int, flags: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, flags, 0, offset, size, 0, 0, 1, 0)

    contents = section(1, 1, 2, 64, len(text))  # SHF_ALLOC: it stays in memory
    table = bytes(64) + contents + section(10, 3, 0, 64 + len(text), len(names))
    return _header(1, sections_at=64 + len(body), sections=3) + body + table


def compress(data: bytes, suffix: str) -> bytes:
    """``data``, compressed as in a module file with that suffix."""
    match suffix:
        case ".ko":
            return data
        case ".ko.xz":
            return lzma.compress(data, check=lzma.CHECK_CRC32)
        case ".ko.gz":
            return gzip.compress(data, mtime=0)
        case ".ko.zst":
            return subprocess.run(["zstd", "-qc"], input=data, capture_output=True,
                                  check=True).stdout  # fmt: skip
    raise ValueError(suffix)


def program(*, interpreter: str = "", needed: Iterable[str] = (), runpath: str = "") -> bytes:
    """An executable that needs a loader and libraries, and contains no code."""
    strings, tags = b"\0", []
    for tag, text in [*((1, name) for name in needed), *([(29, runpath)] if runpath else [])]:
        tags.append((tag, len(strings)))
        strings += text.encode() + b"\0"
    count = 1 + (2 if tags else 0) + bool(interpreter)
    where = 64 + 56 * count
    path = interpreter.encode() + b"\0" if interpreter else b""
    dynamic_at = where + len(path) + len(strings)
    full = [*tags, (5, where + len(path)), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in full) if tags else b""
    size = dynamic_at + len(dynamic)

    def segment(kind: int, offset: int, length: int) -> bytes:
        return struct.pack("<IIQQQQQQ", kind, 5, offset, offset, offset, length, length, _PAGE)

    headers = segment(1, 0, size)
    if interpreter:
        headers += segment(3, where, len(path))
    if tags:
        headers += segment(2, dynamic_at, len(dynamic)) + segment(0x6474E551, 0, 0)
    return _header(2, program_headers=count) + headers + path + strings + dynamic
