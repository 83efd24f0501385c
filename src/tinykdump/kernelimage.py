# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel images: what kexec takes, and what stands in a unified one. Values in, values out.

A bzImage is described in Documentation/arch/x86/boot.rst of the kernel, a unified kernel image
(UKI) by the UAPI Group: a PE file whose section .linux is a bzImage.
"""

import struct
from collections.abc import Iterator


def bzimage(content: bytes) -> bytes:
    """``content`` when it is a bzImage, else the one in it; b"" when there is none."""
    if content[0x202:0x206] == b"HdrS":
        return content
    inner = next((data for name, data in _sections(content) if name == b".linux"), b"")
    return inner if inner[0x202:0x206] == b"HdrS" else b""


def version(content: bytes) -> str:
    """The release in a bzImage, as uname -r says it once it runs; "" when it says none."""
    (pointer,) = struct.unpack_from("<H", content, 0x20E)
    if not pointer:
        return ""
    text = content[0x200 + pointer :][:256].split(b"\0", 1)[0].decode(errors="replace")
    return text.split(" ", 1)[0]


def _sections(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and bytes of every section of a PE file (Microsoft's PE Format); of others none."""
    try:
        (start,) = struct.unpack_from("<I", content, 0x3C)
        if content[:2] != b"MZ" or content[start : start + 4] != b"PE\0\0":
            return
        number, optional = struct.unpack_from("<2xH12xH", content, start + 4)
        for index in range(number):
            at = start + 24 + optional + 40 * index
            name, size, stored, offset = struct.unpack_from("<8sI4xII", content, at)
            # The file's part is padded to whole blocks.
            yield name.rstrip(b"\0"), content[offset : offset + min(size, stored)]
    except struct.error:
        return
