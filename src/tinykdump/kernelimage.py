# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel images that kexec can load, also inside unified ones. Values in, values out.

Their header depends on the architecture. A unified kernel image (UKI, see the UAPI Group's
specification) is a PE file whose section .linux is such an image.
"""

import struct
from collections.abc import Iterator

from tinykdump.architecture import ARCHITECTURES, Architecture
from tinykdump.errors import TinykdumpError

# The kinds that kexec can load, for messages.
KINDS = " or ".join(each.header.name for each in ARCHITECTURES)


def loadable(content: bytes) -> bytes:
    """``content`` if kexec can load it, otherwise the image in it; b"" if there is none."""
    if _architecture(content):
        return content
    inner = next((data for name, data in _sections(content) if name == b".linux"), b"")
    return inner if _architecture(inner) else b""


def architecture(content: bytes, name: str) -> Architecture:
    """The architecture of a kernel image; ``name`` is for messages.

    ``content`` needs to hold only the header. Raises TinykdumpError if it is not such an image.
    """
    found = _architecture(content)
    if found is None:
        raise TinykdumpError(f"{name} is not a {KINDS}", "name an installed kernel image")
    return found


def _architecture(content: bytes) -> Architecture | None:
    for each in ARCHITECTURES:
        start, magic = each.header.magic
        if content[start : start + len(magic)] == magic and len(content) >= each.header.size:
            return each
    return None


def init_size(content: bytes, name: str) -> int:
    """Bytes of memory that the kernel needs to start; ``name`` is for messages.

    ``content`` needs to hold only the header. Raises TinykdumpError if it has no init_size.
    """
    header = architecture(content, name).header
    start, least = header.protocol
    (protocol,) = struct.unpack_from("<H", content, start)
    (size,) = struct.unpack_from("<I", content, header.init_size)
    if protocol < least or not size:
        raise TinykdumpError(f"{name} is too old: no init_size", "install a newer kernel")
    return int(size)


def version(content: bytes) -> str:
    """The release of a loadable image, as uname -r prints it; "" if the header has none."""
    found = _architecture(content)
    if found is None:
        return ""
    start, base = found.header.release
    (pointer,) = struct.unpack_from("<H", content, start)
    if not pointer:
        return ""
    text = content[base + pointer :][:256].split(b"\0", 1)[0].decode(errors="replace")
    return text.split(" ", 1)[0]


def _sections(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and bytes of each section of a PE file (Microsoft's PE Format), if it is one."""
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
