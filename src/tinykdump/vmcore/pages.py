# SPDX-License-Identifier: GPL-2.0-or-later
"""What the memory was used for, from the page descriptors and vmcoreinfo alone. Values in and out.

makedumpfile leaves pages out, but not their descriptors: struct page of include/linux/mm_types.h,
in sections as include/linux/mmzone.h has them (CONFIG_SPARSEMEM_EXTREME). What is free, a slab and
so on is tested as makedumpfile itself does (__exclude_unnecessary_pages in makedumpfile.c).
"""

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from tinykdump.vmcore.facts import Kind, Memory
from tinykdump.vmcoreinfo import Info

# Reads so many bytes of the crashed kernel's memory at a virtual address. Raises ValueError.
Read = Callable[[int, int], bytes]

_POINTER = 8
_ROOTS = 4096  # sections are listed in pages; this many of them are for 64 TiB
_SECTIONS = 1 << 19  # of 128 MiB in 64 TiB; what is forged can list more
_BATCH = 512  # descriptors that are read at a time: those of 2 MiB
_BATCHES = 1 << 13  # of a larger memory than 16 GiB, so many batches are looked at
_LARGEST_ORDER = 12  # pages of a free block, as a power of two

_PRESENT = 0b11  # SECTION_MARKED_PRESENT and SECTION_HAS_MEM_MAP
_FLAGS = (1 << 12) - 1  # what the lowest bits of section_mem_map can be used for
_ANONYMOUS = 1  # in page.mapping

# Kinds as names, the order of the report.
FREE, ANONYMOUS, CACHE, SHARED = "free", "anonymous", "page cache", "shared, in swap cache"
SLAB, HUGE, OFFLINE = "slab (kernel objects)", "huge pages", "offline (balloon)"
OTHER = "kernel and other"
KINDS = (ANONYMOUS, CACHE, SHARED, HUGE, SLAB, OTHER, OFFLINE, FREE)


@dataclass(frozen=True)
class _Layout:
    """Where the fields of a descriptor are, and what their values mean."""

    size: int
    flags: int
    mapping: int
    mapcount: int
    refcount: int
    private: int
    head: int
    lru: int  # masks of page.flags
    swapbacked: int
    types: tuple[tuple[int, str], ...]  # values of _mapcount
    slab: int  # a mask of page.flags; 0: it is one of the types


def by_kind(info: Info, read: Read) -> Memory:
    """The memory by kind. Raises ValueError if vmcoreinfo does not say enough, or lies."""
    layout = _layout(info)
    sections = tuple(islice(_sections(info, read, layout.size), _SECTIONS))
    each = -(-_section_pages(info) // _BATCH)
    batches = range(len(sections) * each)
    stride = -(-len(batches) // _BATCHES) or 1
    counts: Counter[str] = Counter()
    for batch in batches[::stride]:
        section, number = divmod(batch, each)
        try:
            content = read(sections[section] + number * _BATCH * layout.size, _BATCH * layout.size)
        except ValueError:  # a hole in the memory
            continue
        counts.update(_kinds(content, layout))
    if not counts:
        raise ValueError("no page descriptor can be read")
    page = _number(info, "PAGESIZE", 1 << 16)
    kinds = tuple(Kind(name, counts[name] * page * stride) for name in KINDS if counts[name])
    looked = "page descriptors" if stride == 1 else f"every {stride}th block of page descriptors"
    return Memory(kinds, f"counted from {looked}")


def _number(info: Info, name: str, most: int) -> int:
    found = info.number(name)
    if found is None or not 0 <= found <= most:
        raise ValueError(f"vmcoreinfo has no {name}")
    return found


def _layout(info: Info) -> _Layout:
    def offset(name: str) -> int:
        return _number(info, f"OFFSET(page.{name})", 256)

    def mask(name: str) -> int:
        return 1 << _number(info, f"NUMBER({name})", 63)

    values = {
        FREE: info.number("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)"),
        SLAB: info.number("NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)"),
        HUGE: info.number("NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)"),
        OFFLINE: info.number("NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)"),
    }
    return _Layout(
        size=_number(info, "SIZE(page)", 256) or 64,
        flags=offset("flags"), mapping=offset("mapping"), mapcount=offset("_mapcount"),
        refcount=offset("_refcount"), private=offset("private"), head=offset("compound_head"),
        lru=mask("PG_lru"), swapbacked=mask("PG_swapbacked"),
        types=tuple((value, name) for name, value in values.items() if value is not None),
        slab=0 if values[SLAB] is not None else mask("PG_slab"),
    )  # fmt: skip


def _section_pages(info: Info) -> int:
    page = _number(info, "PAGESIZE", 1 << 16)
    return 1 << _number(info, "NUMBER(SECTION_SIZE_BITS)", 40) >> page.bit_length() - 1


def _sections(info: Info, read: Read, size: int) -> Iterator[int]:
    """Where the descriptors of each section with memory begin."""
    entry = _number(info, "SIZE(mem_section)", 4096) or 32
    page = _number(info, "PAGESIZE", 1 << 16)
    roots = min(_number(info, "LENGTH(mem_section)", 1 << 40), _ROOTS)
    pages = _section_pages(info)
    field = _number(info, "OFFSET(mem_section.section_mem_map)", entry - _POINTER)
    top = _number(info, "SYMBOL(mem_section)", (1 << 64) - 1)
    for number, (root,) in enumerate(struct.iter_unpack("<Q", read(top, roots * _POINTER))):
        if not root:
            continue
        content = read(root, page)
        per_root = page // entry
        for index in range(per_root):
            (encoded,) = struct.unpack_from("<Q", content, index * entry + field)
            if encoded & _PRESENT == _PRESENT:
                first = (number * per_root + index) * pages
                yield (encoded & ~_FLAGS) + first * size & (1 << 64) - 1


def _kinds(content: bytes, layout: _Layout) -> Counter[str]:
    """How many pages of each kind these descriptors are of."""
    counts: Counter[str] = Counter()
    kind, skip = OTHER, 0
    for flags, mapping, mapcount, refcount, private, head in zip(*_columns(content, layout),
                                                                 strict=True):  # fmt: skip
        if skip:  # the rest of a free block; only its first page says so
            skip -= 1
        elif not head & 1:  # otherwise, the tail of a compound page is what its head is
            kind = _kind(flags, mapping, mapcount, refcount, layout)
            if kind == FREE and refcount == 0 and mapcount != 0xFFFFFFFF:
                skip = (1 << min(private, _LARGEST_ORDER)) - 1
        counts[kind] += 1
    return counts


def _columns(content: bytes, layout: _Layout) -> tuple[Sequence[int], ...]:
    """The fields of all descriptors: flags, mapping, _mapcount, _refcount, private, head."""
    longs, words = memoryview(content).cast("Q"), memoryview(content).cast("I")
    step = layout.size
    wide = (layout.flags, layout.mapping, layout.private, layout.head)
    flags, mapping, private, head = (longs[at // 8 :: step // 8].tolist() for at in wide)
    narrow = (layout.mapcount, layout.refcount)
    mapcount, refcount = (words[at // 4 :: step // 4].tolist() for at in narrow)
    return flags, mapping, mapcount, refcount, private, head


def _kind(flags: int, mapping: int, mapcount: int, refcount: int, layout: _Layout) -> str:
    for value, name in layout.types:
        # Since Linux 6.11 the type is the top byte; before, a bit that is cleared in -1.
        whole = value & 0xFFFFFFFF
        if mapcount & (0xFF000000 if not whole & 0xFFFFFF else 0xFFFFFFFF) == whole:
            return name
    if flags & layout.slab:
        return SLAB
    if mapping & _ANONYMOUS and flags & layout.swapbacked:
        return ANONYMOUS
    if flags & layout.lru:
        return SHARED if flags & layout.swapbacked else CACHE
    return FREE if refcount == 0 and not mapping else OTHER
