# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a crash kernel needs. Values in, values out; no I/O here.

What fills the reservation over time: the kernel, then the packed and the unpacked image
side by side while the kernel unpacks, then the unpacked image with makedumpfile, gpg and
the page cache of the stick. The two peaks do not coincide, so the larger one counts.
"""

import struct
from dataclasses import dataclass

from tinykdump.errors import TinykdumpError

MIB = 1 << 20

# What is left of the smallest reservation that captures (make bench: 84 MiB on
# Debian 6.12 with 1 GiB) when the other rows are taken away, split by what fails first when
# there is less.
KERNEL_AT_RUN_TIME = 12 * MIB
CAPTURE = 8 * MIB

# A reservation is made of whole blocks of this size.
ALIGNMENT = 2 * MIB


@dataclass(frozen=True)
class Row:
    """One line of the breakdown."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Need:
    """What a crash kernel needs, and why."""

    rows: tuple[Row, ...]
    margin: Row

    @property
    def minimum(self) -> int:
        """Bytes without the margin: enough, where there is no way to get more."""
        return _whole_blocks(sum(row.bytes for row in self.rows))

    @property
    def total(self) -> int:
        """Bytes to reserve."""
        return _whole_blocks(sum(row.bytes for row in (*self.rows, self.margin)))


def _whole_blocks(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def table(need: Need, width: int = 32) -> str:
    """The breakdown for people: a line and a bar for each row, then the sum.

    ``width`` is that of the longest bar, in characters.
    """
    rows = (*need.rows, need.margin)
    longest = max(row.bytes for row in rows) or 1
    shown = [(row, "#" * (row.bytes * width // longest)) for row in rows]
    shown.append((Row("to reserve", need.total), ""))
    names = max(len(row.name) for row, _ in shown)
    return "\n".join(
        f"{row.name:<{names}}  {row.bytes / MIB:6.1f} MiB  {bar}".rstrip() for row, bar in shown
    )


def init_size(header: bytes, name: str) -> int:
    """Bytes that a bzImage wants to run in, from at least its first 0x264 bytes.

    Documentation/arch/x86/boot.rst: "HdrS" at 0x202, the protocol's version at 0x206,
    init_size at 0x260 since 2.10. Raises TinykdumpError when it is no such image.
    """
    if len(header) < 0x264 or header[0x202:0x206] != b"HdrS":
        raise TinykdumpError(f"{name} is not a bzImage", "name the kernel as it is installed")
    version, size = struct.unpack_from("<H", header, 0x206)[0], 0
    if version >= 0x20A:
        size = struct.unpack_from("<I", header, 0x260)[0]
    if not size:
        raise TinykdumpError(f"{name} is too old: no init_size", "install a newer kernel")
    return int(size)


def need(*, kernel: int, packed: int, unpacked: int, margin: int) -> Need:
    """The need of a kernel with that init_size and an image of those sizes (all in bytes).

    ``margin`` is percent of the sum.
    """
    rows = (
        Row("kernel image", kernel),
        Row("kernel at run time", KERNEL_AT_RUN_TIME),
        Row("unpacked image", unpacked),
        Row("packed image while unpacking, or dump buffers", max(packed, CAPTURE)),
    )
    extra = sum(row.bytes for row in rows) * margin // 100
    return Need(rows, Row(f"margin of {margin} %", extra))
