# SPDX-License-Identifier: GPL-2.0-or-later
"""How much space a dump takes, and how much a stick has. Values in, values out; no I/O here.

tinykdump does not mount a stick to find its free space, because a hostile file system could attack
the kernel then. Instead, this module parses the file system's own data.
"""

import re
import struct
from array import array
from collections.abc import Callable

_MIB = 1 << 20

# Takes offset and size in bytes, and returns the bytes there: fewer at the end of the device.
Read = Callable[[int, int], bytes]

# The bit for free pages in makedumpfile's dump level (makedumpfile(8), -d).
FREE_PAGES = 16
# All bits.
ALL = 31

# A larger table of free space is not read, because that would take many seconds.
_LARGEST_TABLE = 64 * _MIB


def amount(size: int) -> str:
    """Format a size in bytes as MiB or GiB."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 100 * _MIB else f"{size // _MIB} MiB"


def expected_dump(meminfo: str, iomem: str, level: int) -> int:
    """Bytes in an uncompressed dump of the running kernel, if it crashed now; 0: not known.

    That is the memory that ``level`` (makedumpfile(8), -d) does not leave out: with 31, the
    kernel's own. Compression and pages of zeros make a dump smaller, so this is an upper
    estimate.

    /proc/meminfo (proc_meminfo(5)) does not count what the kernel took early: its own image and its
    memory map. /proc/iomem does. The reservation is not dumped.
    """
    found = re.findall(r"^(\w+): +([0-9]{1,15}) kB$", meminfo, re.MULTILINE)
    have = {name: int(size) << 10 for name, size in found}
    spans = re.findall(
        r"^ *([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (System RAM|Crash kernel)$", iomem, re.MULTILINE
    )
    ram = sum(
        (int(end, 16) - int(start, 16) + 1) * (1 if name == "System RAM" else -1)
        for start, end, name in spans
        if int(end, 16)  # all of them are 0 for a user who must not see them
    )
    left_out = (
        (FREE_PAGES, ("MemFree",)),
        (4, ("Cached", "Buffers")),
        (8, ("AnonPages", "Hugetlb")),
    )
    gone = sum(have.get(name, 0) for bit, names in left_out if level & bit for name in names)
    return max(0, max(ram, have.get("MemTotal", 0)) - gone)


def free(filesystem: str, read: Read) -> int | None:
    """Free bytes of a file system that is not mounted; None: not known.

    ``filesystem`` is its type as blkid(8) names it. Exceptions of ``read`` are passed on.
    """
    known = {"vfat": _fat, "exfat": _exfat, "ext2": _ext, "ext3": _ext, "ext4": _ext}
    look = known.get(filesystem)
    try:
        return look(read) if look else None
    except (ValueError, struct.error):
        return None


def _need(condition: bool) -> None:
    if not condition:
        raise ValueError


def _numbers(layout: str, data: bytes, at: int) -> tuple[int, ...]:
    return struct.unpack_from(layout, data, at)


def _chunks(read: Read, start: int, size: int) -> list[bytes]:
    """Read ``size`` bytes in chunks of 1 MiB. Raises ValueError if they are not there."""
    _need(0 <= size <= _LARGEST_TABLE)
    return [_block(read, start + at, min(_MIB, size - at)) for at in range(0, size, _MIB)]


def _block(read: Read, at: int, size: int) -> bytes:
    found = read(at, size)
    _need(len(found) == size)
    return found


def _fat(read: Read) -> int | None:
    """FAT16 and FAT32: count the entries of the table that are 0.

    Source: Microsoft's FAT specification, "Boot Sector and BPB". As in Linux, a file system whose
    16-bit table size is 0 is FAT32.
    """
    boot = _block(read, 0, 512)
    sector, cluster, reserved, tables, root, small, table = _numbers("<HBHBHHxH", boot, 11)
    large, table32 = _numbers("<II", boot, 32)
    _need(sector in (512, 1024, 2048, 4096) and min(cluster, reserved, tables) > 0)
    width = 2 if table else 4
    table = table or table32
    data = (small or large) - reserved - tables * table - -(-root * 32 // sector)
    clusters = data // cluster
    _need(clusters > 0 and (clusters + 2) * width <= table * sector)
    if width == 2 and clusters < 4085:
        return None  # FAT12, whose entries have 12 bits
    size, start = clusters * width, reserved * sector + 2 * width
    count = sum(_zeros(chunk, width) for chunk in _chunks(read, start, size))
    return count * cluster * sector


def _zeros(chunk: bytes, width: int) -> int:
    """How many numbers of ``width`` bytes are 0; the byte order makes no difference."""
    return array("H" if width == 2 else "I", chunk).count(0)


def _exfat(read: Read) -> int:
    """exFAT: count the bits of the allocation bitmap that are 0.

    Source: Microsoft's exFAT specification, 3.1 and 7.1. Like Linux, this expects a contiguous
    bitmap.
    """
    boot = _block(read, 0, 512)
    heap, clusters, root = _numbers("<III", boot, 88)
    sector_shift, cluster_shift = _numbers("BB", boot, 108)
    _need(9 <= sector_shift <= 12 and sector_shift + cluster_shift <= 25)
    sector, cluster = 1 << sector_shift, 1 << (sector_shift + cluster_shift)

    def place(number: int) -> int:
        _need(2 <= number < clusters + 2)
        return heap * sector + (number - 2) * cluster

    directory = _block(read, place(root), min(cluster, _MIB))
    for at in range(0, len(directory) - 31, 32):
        kind, flags, first, size = _numbers("<BB18xIQ", directory, at)
        if kind == 0x81 and not flags & 1:  # the second bitmap belongs to TexFAT
            bits = -(-clusters // 8)
            _need(size >= bits)
            used = b"".join(_chunks(read, place(first), bits))
            count = int.from_bytes(used, "little") & ((1 << clusters) - 1)
            return (clusters - count.bit_count()) * cluster
        _need(kind != 0)
    raise ValueError


def _ext(read: Read) -> int | None:
    """ext2 to ext4: the superblock's count of free blocks, without the reserved ones.

    Source: Documentation/filesystems/ext4/super.rst. None if the file system was not unmounted: the
    journal has the true count then.
    """
    block = _block(read, 1024, 1024)
    total, kept, free_blocks = _numbers("<III", block, 4)
    (shift,), (magic,), (features,) = (
        _numbers("<I", block, 24), _numbers("<H", block, 56), _numbers("<I", block, 96)
    )  # fmt: skip
    if features & 0x80:  # INCOMPAT_64BIT
        high = _numbers("<III", block, 0x150)
        total, kept, free_blocks = (
            low | more << 32 for low, more in zip((total, kept, free_blocks), high, strict=True)
        )
    _need(magic == 0xEF53 and shift <= 6 and free_blocks <= total < 1 << 48)
    if features & 0x4:  # INCOMPAT_RECOVER
        return None
    if features & 0x40:  # INCOMPAT_EXTENTS: see ext4_calculate_resv_clusters() in the kernel
        kept += min(total // 50, 4096)
    return max(0, free_blocks - kept) * (1024 << shift)
