import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakehost import bzimage
from tinykdump.errors import TinykdumpError
from tinykdump.memory import (
    ALIGNMENT,
    CAPTURE,
    KERNEL_AT_RUN_TIME,
    MIB,
    Need,
    Row,
    init_size,
    need,
    table,
)


def test_init_size() -> None:
    assert init_size(bzimage(init_size=0x1234567), "k") == 0x1234567
    assert init_size(bzimage(version=0x20A, init_size=5)[:0x264], "k") == 5


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"", "k is not a bzImage"),
        (bzimage()[:0x263], "k is not a bzImage"),
        (bzimage(magic=b"MZ\0\0"), "k is not a bzImage"),
        (bzimage(version=0x209), "k is too old"),
        (bzimage(init_size=0), "k is too old"),
    ],
)
def test_what_is_no_kernel(header: bytes, says: str) -> None:
    with pytest.raises(TinykdumpError, match=f"^{says}"):
        init_size(header, "k")


def test_the_larger_peak_counts_once() -> None:
    small = need(kernel=40 * MIB, packed=1, unpacked=10 * MIB, margin=0)
    assert small.total == 40 * MIB + KERNEL_AT_RUN_TIME + 10 * MIB + CAPTURE
    large = need(kernel=40 * MIB, packed=CAPTURE + 4 * MIB, unpacked=10 * MIB, margin=0)
    assert large.total == small.total + 4 * MIB


sizes = st.integers(0, 1 << 34)


@given(kernel=sizes, packed=sizes, unpacked=sizes, margin=st.integers(0, 400))
def test_whole_blocks_and_never_less_than_the_rows(
    kernel: int, packed: int, unpacked: int, margin: int
) -> None:
    found = need(kernel=kernel, packed=packed, unpacked=unpacked, margin=margin)
    rows = sum(row.bytes for row in found.rows)
    assert found.margin.bytes == rows * margin // 100
    for size, exact in ((found.minimum, rows), (found.total, rows + found.margin.bytes)):
        assert size % ALIGNMENT == 0
        assert 0 <= size - exact < ALIGNMENT
    assert kernel + unpacked + packed <= found.minimum


def test_the_breakdown_for_people() -> None:
    text = table(Need((Row("kernel", 8 * MIB), Row("image", 2 * MIB)), Row("margin", 0)), width=8)
    assert text.splitlines() == [
        "kernel         8.0 MiB  ########",
        "image          2.0 MiB  ##",
        "margin         0.0 MiB",
        "to reserve    10.0 MiB",
    ]
