# SPDX-License-Identifier: GPL-2.0-or-later
"""How much memory a crash kernel needs. Values in, values out; no I/O here.

The crash kernel and its memory map stay in the reservation throughout. There are two peaks. The
first one is while the kernel unpacks the image: the packed and the unpacked image exist at the same
time. The second one is during the dump: the unpacked image, drivers, makedumpfile, gpg and the page
cache of the stick. The need is the larger peak.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from tinykdump import kernelimage
from tinykdump.architecture import Architecture, Layout
from tinykdump.image.cmdline import BOUNCE_BUFFERS, encrypts_memory, values
from tinykdump.image.manifest import Manifest

MIB = 1 << 20

# make bench measures these: they are the smallest reservation that saves a dump, minus everything
# that can be computed. KERNEL_DATA covers per-CPU areas, page tables, slabs and buffers of
# drivers. CAPTURE covers makedumpfile, gpg and the pages that wait to be written to the stick, and
# JOURNAL what a file system with a journal keeps of them.
KERNEL_DATA = 5 * MIB
CAPTURE = 9 * MIB // 2
JOURNAL = 5 * MIB // 2
_WITHOUT_JOURNAL = {"vfat", "exfat"}

# A kernel that has USB and disk drivers built in, as Fedora's, has more of that: tables, threads
# and queues of all that it has built in. tests/kernel/service/test_fedora.py checks the sum.
BUILT_IN_DATA = 19 * MIB // 2

# The small crash kernel has much less of both than any other kernel, although all is built in. On
# a guest with 1 GiB, 30 MiB are computed, and 28 MiB did not save a dump (make bench: floor-small).
# It is known by this option.
SMALL_DATA = 3 * MIB
_SMALL = "CONFIG_SLUB_TINY=y"

# For each section with usable memory, the kernel has a map: a struct page for each page. In bytes.
_STRUCT_PAGE = 64

# makedumpfile keeps two bits for each page of the crashed kernel, here of 4 KiB: larger pages need
# less. If that is more than the limit, it works in several rounds (makedumpfile(8),
# --cyclic-buffer).
_BYTES_PER_BITMAP_BYTE = 4 * 4096
_BITMAP_LIMIT = 8 * MIB

# First, makedumpfile reads the crashed kernel's log buffer. For each 32 bytes of text
# (PRB_AVGBITS in kernel/printk) there are a descriptor of 24 bytes and a printk_info of 88 bytes.
# makedumpfile writes the log to a file in memory, with 15 more bytes for the time of each record.
# gpg does not run yet, so the default log buffer of 256 KiB needs less memory than the dump that
# follows.
_BYTES_PER_LOG_BYTE = 6
_LOG_READER = 2 * MIB

# The defaults of the log buffer's size (init/Kconfig), as distributions use them.
_LOG_SHIFTS = {"CONFIG_LOG_BUF_SHIFT": 18, "CONFIG_LOG_CPU_MAX_BUF_SHIFT": 12}

_LONGEST_BAR = 32  # characters

# The size of a reservation is a multiple of this.
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
        """Bytes without the margin: enough for a reservation that cannot grow."""
        return _whole_blocks(sum(row.bytes for row in self.rows))

    @property
    def total(self) -> int:
        """Bytes to reserve."""
        return _whole_blocks(sum(row.bytes for row in (*self.rows, self.margin)))


def _whole_blocks(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def table(need: Need) -> str:
    """The breakdown as text: a line and a bar for each row, then the sum."""
    rows = (*need.rows, need.margin)
    longest = max(row.bytes for row in rows) or 1
    shown = [(row, "#" * (row.bytes * _LONGEST_BAR // longest)) for row in rows]
    shown.append((Row("to reserve", need.total), ""))
    names = max(len(row.name) for row, _ in shown)
    return "\n".join(
        f"{row.name:<{names}}  {row.bytes / MIB:6.1f} MiB  {bar}".rstrip() for row, bar in shown
    )


def total(meminfo: str) -> int:
    """MemTotal of /proc/meminfo (proc_meminfo(5)) in bytes; 0 if it is not there."""
    found = re.search(r"^MemTotal: *([0-9]+) kB$", meminfo, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def log_buffer(cmdline: str, kernel_config: str, cpus: int) -> int:
    """Size in bytes of a kernel's log buffer, as setup_log_buf() chooses it (kernel/printk).

    ``cmdline`` and ``kernel_config`` (the .config; empty: not known) are that kernel's. ``cpus`` is
    the number of CPUs that the machine can have.
    """
    shifts = {name: _shift(kernel_config, name) for name in _LOG_SHIFTS}
    usual = 1 << shifts["CONFIG_LOG_BUF_SHIFT"]
    asked = [_power_of_two(_bytes(text)) for text in values(cmdline, "log_buf_len")]
    larger = [size for size in asked if size > usual]
    if larger:
        return larger[-1]
    extra = (cpus - 1) << shifts["CONFIG_LOG_CPU_MAX_BUF_SHIFT"]
    return _power_of_two(usual + extra) if extra > usual // 2 else usual


def _shift(kernel_config: str, name: str) -> int:
    found = re.search(rf"^{name}=([0-9]{{1,2}})$", kernel_config, re.MULTILINE)
    return int(found[1]) if found else _LOG_SHIFTS[name]


def _bytes(text: str) -> int:
    """Parse a size as the kernel's memparse() does; 0 for anything else."""
    found = re.match(r"(0[xX][0-9a-fA-F]{1,15}|[0-9]{1,18})([kKmMgG]?)", text)
    if not found:
        return 0
    number = int(found[1], 16 if found[1][1:2] in ("x", "X") else 10)
    return number << {"": 0, "k": 10, "m": 20, "g": 30}[found[2].lower()]


def _power_of_two(size: int) -> int:
    """The next power of two from ``size`` on, but at most the kernel's limit of 2 GiB."""
    return min(1 << max(size - 1, 0).bit_length(), 1 << 31)


def kernel_data(
    architecture: Architecture, kernel_config: str, cmdline: str, *, built_in: bool
) -> int:
    """Bytes for the data of a kernel beyond its image.

    By its .config, the crash kernel's command line, and whether its USB core is built in.
    """
    options, parameters = kernel_config.splitlines(), cmdline.split()
    if _SMALL in options:
        return SMALL_DATA
    saved = (
        each.bytes
        for each in architecture.savings
        if each.parameter in parameters and (not each.option or each.option in options)
    )
    return KERNEL_DATA + BUILT_IN_DATA * built_in - sum(saved)


def capture(filesystems: Collection[str]) -> int:
    """Bytes for a dump to one of these file systems; none: not known."""
    is_simple = filesystems and _WITHOUT_JOURNAL.issuperset(filesystems)
    return CAPTURE if is_simple else CAPTURE + JOURNAL


@dataclass(frozen=True)
class Parts:
    """The inputs of the need; sizes in bytes."""

    kernel: int  # init_size of the kernel image
    packed: int  # the image
    unpacked: int
    drivers: int  # the image's modules, once they are loaded
    memory: int  # of the machine
    layout: Layout  # of the crash kernel's memory
    log: int = 0  # log buffer of the system kernel
    bounce: int = 0  # bounce buffers of the crash kernel
    screen: int = 0  # the crash kernel's copy of the screen
    data: int = KERNEL_DATA  # of the kernel itself, from kernel_data()
    capture: int = CAPTURE  # for the dump, from capture()


def of_image(
    image: Manifest, kernel: bytes, kernel_config: str, *, machine: int, log: int = 0,
    screen: int = 0,
) -> Need:  # fmt: skip
    """The need of an image.

    ``kernel`` begins with the header of its kernel image, and ``kernel_config`` is that kernel's
    .config; the sizes are as in Parts, ``machine`` is its memory. Raises TinykdumpError for a
    damaged kernel.
    """
    architecture = kernelimage.architecture(kernel, image.kernel)
    parts = Parts(
        kernel=kernelimage.init_size(kernel, image.kernel),
        packed=image.packed,
        unpacked=image.unpacked,
        drivers=image.drivers,
        memory=machine,
        layout=architecture.layout_of(kernel_config),
        log=log,
        screen=screen,
        data=kernel_data(
            architecture, kernel_config, image.cmdline, built_in="usbcore" not in image.modules
        ),
        capture=capture(image.filesystems),
        bounce=BOUNCE_BUFFERS if encrypts_memory(image.cmdline) else 0,
    )
    return need(parts, image.margin)


def need(parts: Parts, margin: int) -> Need:
    """Compute the need of a crash kernel. ``margin`` is in percent of the sum."""
    bitmaps = min(parts.memory // _BYTES_PER_BITMAP_BYTE, _BITMAP_LIMIT)
    dumping = max(parts.capture + bitmaps, _LOG_READER + _BYTES_PER_LOG_BYTE * parts.log)
    data = parts.data + parts.bounce + parts.screen
    fixed = (
        Row("kernel image", parts.kernel),
        Row("data of the kernel", data),
        Row("unpacked image", parts.unpacked),
        Row("drivers and dumping, or packed image",
            max(parts.packed, parts.drivers + dumping)),
    )  # fmt: skip
    rows = (*fixed, Row("memory map", _memory_map(sum(row.bytes for row in fixed), parts.layout)))
    extra = sum(row.bytes for row in rows) * margin // 100
    return Need(rows, Row(f"margin of {margin} %", extra))


def _memory_map(size: int, layout: Layout) -> int:
    """Bytes of the map of a region of that size, wherever it begins, and of the first section.

    On x86, a crash kernel also gets the first 640 KiB of memory, which are in the first section.
    """
    sections = 2 + size // layout.section
    return (1 + sections) * layout.section // layout.page * _STRUCT_PAGE
