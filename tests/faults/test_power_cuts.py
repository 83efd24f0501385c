# SPDX-License-Identifier: GPL-2.0-or-later
"""The writes to a stick as QEMU recorded them, and what a power cut leaves of them."""

import random
import struct

from tests.faults.crash_kernel import Flush, Write, cut, read_writes

SIZE = 512


def entry(sector: int, data: bytes = b"", flags: int = 0) -> bytes:
    head = struct.pack("<QQQQ", sector, len(data) // SIZE, flags, 0)
    return head.ljust(SIZE, b"\0") + data


def log(*entries: bytes) -> bytes:
    return struct.pack("<QQQI", 0x6A736677736872, 1, len(entries), SIZE).ljust(SIZE, b"\0") + (
        b"".join(entries)
    )


A, B = SIZE * b"a", 2 * SIZE * b"b"


def test_writes_and_flushes_are_read_in_order() -> None:
    """A write with FUA is on the medium when it ends; what was discarded was never data."""
    text = log(entry(3, A), entry(0, flags=1), entry(5, B, flags=2), entry(7, b"", flags=4))
    assert read_writes(text) == [
        Write(3 * SIZE, A), Flush, Write(5 * SIZE, B), Flush,
    ]  # fmt: skip


def test_a_cut_loses_no_write_that_was_flushed() -> None:
    first, second = Write(0, A), Write(SIZE, A)
    writes = [first, Flush, *(Write(number * SIZE, A) for number in range(2, 102)), second]
    for seed in range(20):
        kept = cut(writes, 102, 0.5, random.Random(seed))  # noqa: S311 - no secret
        assert kept[0] == first
        assert 20 < len(kept) < 80
        assert second not in kept
        assert cut(writes, 102, 0, random.Random(seed)) == [first]  # noqa: S311
