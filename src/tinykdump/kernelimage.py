# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel images that kexec can load, also inside unified and packed ones. Values in, values out.

Their header depends on the architecture. A unified kernel image (UKI, see the UAPI Group's
specification) is a PE file whose section .linux is such an image, or a packed one. Where the kernel
cannot unpack itself, an image is packed as a whole: with gzip (Image.gz), or in a program for EFI
(CONFIG_EFI_ZBOOT, drivers/firmware/efi/libstub/zboot-header.S).
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator

from tinykdump.architecture import ARCHITECTURES, Architecture
from tinykdump.errors import TinykdumpError

# The kinds that kexec can load, for messages.
KINDS = " or ".join(each.header.name for each in ARCHITECTURES)

# More bytes than any kernel image has: what gzip unpacks to more is none.
_LARGEST = 512 << 20

# A unified image with a zboot image with an image packed by gzip: more than there is.
_LAYERS = 3

_GZIP = b"\x1f\x8b"
_ZBOOT = (4, b"zimg")
_ZBOOT_PAYLOAD = struct.Struct("<8xII8x32s")  # its place and size, and how it is packed

# linux_banner (init/version.c), in an image that is not packed.
_BANNER = re.compile(rb"Linux version ([!-~]{1,64}) \(")

# Unpacks zstd. Raises TinykdumpError.
Unpack = Callable[[bytes], bytes]


def loadable(content: bytes, zstd: Unpack) -> bytes:
    """``content`` if kexec can load it, otherwise the image in it; b"" if there is none."""
    for _ in range(_LAYERS):
        if _architecture(content):
            return content
        content = _inner(content, zstd)
    return content if _architecture(content) else b""


def _inner(content: bytes, zstd: Unpack) -> bytes:
    """What is packed in ``content``; b"" if there is nothing."""
    place, magic = _ZBOOT
    if content[: len(_GZIP)] == _GZIP:
        return _gunzip(content)
    if content[place : place + len(magic)] == magic and len(content) >= _ZBOOT_PAYLOAD.size:
        start, size, how = _ZBOOT_PAYLOAD.unpack_from(content)
        return _unpacked(content[start : start + size], how.split(b"\0", 1)[0], zstd)
    return next((data for name, data in _sections(content) if name == b".linux"), b"")


def _unpacked(data: bytes, how: bytes, zstd: Unpack) -> bytes:
    """A zboot image's payload. Since Linux 6.16, zstd22 is called zstd, and there is no third."""
    if how == b"gzip":
        return _gunzip(data)
    try:
        return zstd(data) if how in (b"zstd", b"zstd22") else b""
    except TinykdumpError:
        return b""


def _gunzip(data: bytes) -> bytes:
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # gzip's header and checksum
    try:
        unpacked = unpack.decompress(data, _LARGEST)
    except zlib.error:
        return b""
    return unpacked if unpack.eof else b""


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
    (size,) = struct.unpack_from(header.init_size[1], content, header.init_size[0])
    if header.protocol:
        start, least = header.protocol
        (protocol,) = struct.unpack_from("<H", content, start)
        size *= protocol >= least
    if not size:
        raise TinykdumpError(f"{name} is too old: no init_size", "install a newer kernel")
    return int(size)


def version(content: bytes) -> str:
    """The release of a loadable image, as uname -r prints it; "" if it does not say it."""
    found = _architecture(content)
    if found is None:
        return ""
    if found.header.release is None:
        banner = _BANNER.search(content)
        return banner[1].decode() if banner else ""
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
