# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's log in a vmcore, found with vmcoreinfo alone. Values in, values out.

The format is that of kernel/printk/printk_ringbuffer.h in Linux (since 5.10): a ring of
descriptors, a ring of their times and lengths, and a ring of text.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tinykdump.text import short
from tinykdump.vmcore.facts import Record
from tinykdump.vmcoreinfo import Info

# Reads so many bytes of the crashed kernel's memory at a virtual address. Raises ValueError.
Read = Callable[[int, int], bytes]

# The largest rings that are read: 16 MiB of text. log_buf_len= allows more.
_DESCRIPTOR_BITS = 18
_TEXT_BITS = 24

_LARGEST = 256  # bytes of a descriptor or of a printk_info, which have 24 and 88

_LINE = 1000  # characters; printk has 1024 bytes for a line

# States of a descriptor that has a text, in the top bits of its state_var.
_FINISHED = (1, 2)  # desc_committed, desc_finalized
_FLAG_BITS = 62
_ID_MASK = (1 << _FLAG_BITS) - 1

_U16, _U32, _U64 = (struct.Struct(f"<{kind}") for kind in "HIQ")


@dataclass(frozen=True)
class _Ring:
    """A ring in memory: entries of ``size`` bytes each."""

    content: bytes
    size: int
    info: Info

    def field(self, kind: struct.Struct, number: int, *names: str) -> int:
        """A field of an entry, by its names in vmcoreinfo from the outer to the inner one."""
        at = number * self.size + sum(_offset(self.info, name) for name in names)
        return int(kind.unpack_from(self.content, at)[0])


def records(info: Info, read: Read) -> tuple[Record, ...]:
    """The lines of the log, the oldest first. Raises ValueError if there is none, or a damaged one.

    Lines that are damaged are left out.
    """
    try:
        return tuple(_records(info, read))
    except struct.error:
        raise ValueError("the log's rings are damaged") from None


def _offset(info: Info, name: str) -> int:
    found = info.number(f"OFFSET({name})")
    if found is None or not 0 <= found < 1 << 16:
        raise ValueError(f"vmcoreinfo has no {name}")
    return found


def _size(info: Info, name: str) -> int:
    found = info.number(f"SIZE({name})")
    if found is None or not 0 < found <= _LARGEST:
        raise ValueError(f"vmcoreinfo has no size of {name}")
    return found


def _bits(number: int, most: int) -> int:
    if not 0 < number <= most:
        raise ValueError("the log is too large")
    return number


def _records(info: Info, read: Read) -> Iterator[Record]:
    symbol = info.number("SYMBOL(prb)")
    if symbol is None:
        raise ValueError("vmcoreinfo does not say where the log is")
    top = _U64.unpack(read(symbol, 8))[0]
    whole = _Ring(read(top, _size(info, "printk_ringbuffer")), 0, info)
    ring, text_ring = "printk_ringbuffer.desc_ring", "printk_ringbuffer.text_data_ring"
    count = 1 << _bits(whole.field(_U32, 0, ring, "prb_desc_ring.count_bits"), _DESCRIPTOR_BITS)
    size = 1 << _bits(whole.field(_U32, 0, text_ring, "prb_data_ring.size_bits"), _TEXT_BITS)

    def entries(pointer: str, entry: int) -> _Ring:
        address = whole.field(_U64, 0, ring, f"prb_desc_ring.{pointer}")
        return _Ring(read(address, count * entry), entry, info)

    descriptors = entries("descs", _size(info, "prb_desc"))
    infos = entries("infos", _size(info, "printk_info"))
    text = read(whole.field(_U64, 0, text_ring, "prb_data_ring.data"), size)
    tail = whole.field(_U64, 0, ring, "prb_desc_ring.tail_id", "atomic_long_t.counter")
    head = whole.field(_U64, 0, ring, "prb_desc_ring.head_id", "atomic_long_t.counter")
    for number in range(min((head - tail & _ID_MASK) + 1, count)):
        at = tail + number & _ID_MASK
        yield from _lines(at, at % count, descriptors, infos, text)


def _lines(number: int, at: int, descriptors: _Ring, infos: _Ring, text: bytes) -> Iterator[Record]:
    """The lines of one descriptor; none if it has been written over."""
    state = descriptors.field(_U64, at, "prb_desc.state_var", "atomic_long_t.counter")
    if state >> _FLAG_BITS not in _FINISHED or state & _ID_MASK != number:
        return
    place = "prb_desc.text_blk_lpos"
    begin = descriptors.field(_U64, at, place, "prb_data_blk_lpos.begin")
    end = descriptors.field(_U64, at, place, "prb_data_blk_lpos.next")
    if begin & 1:  # it has no text
        return
    begin, end = begin % len(text), end % len(text)
    if begin > end:  # a text that would wrap is at the start of the ring
        begin = 0
    length = infos.field(_U16, at, "printk_info.text_len")
    content = text[begin + 8 : min(begin + 8 + length, end)]  # the descriptor's ID precedes it
    nanoseconds = infos.field(_U64, at, "printk_info.ts_nsec")
    # Behind text_len are facility (8 bits), then flags (5 bits) and the level (3 bits).
    level = infos.field(_U32, at, "printk_info.text_len") >> 29
    for line in content.splitlines()[:64]:
        yield Record(nanoseconds / 1e9, level, short(line, _LINE))
