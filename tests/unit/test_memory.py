# SPDX-License-Identifier: GPL-2.0-or-later
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinykdump.architecture import AARCH64, X86_64, Architecture, Layout
from tinykdump.memory import (
    ALIGNMENT,
    BUILT_IN_DATA,
    CAPTURE,
    JOURNAL,
    KERNEL_DATA,
    MIB,
    SMALL_DATA,
    Need,
    Parts,
    Row,
    capture,
    kernel_data,
    log_buffer,
    need,
    table,
    total,
)

PARTS = Parts(kernel=40 * MIB, packed=1, unpacked=10 * MIB, drivers=0, memory=0,
              layout=Layout())  # fmt: skip


def test_only_the_larger_peak_counts() -> None:
    small = need(PARTS, margin=0)
    exact = 40 * MIB + KERNEL_DATA + 10 * MIB + CAPTURE + 6 * MIB
    assert 0 <= small.total - exact < ALIGNMENT
    assert need(replace(PARTS, packed=CAPTURE), 0) == small
    assert need(replace(PARTS, packed=CAPTURE + 4 * MIB), 0).total == small.total + 4 * MIB
    assert need(replace(PARTS, drivers=4 * MIB), 0).total == small.total + 4 * MIB


def test_bitmaps_grow_with_the_memory_up_to_a_limit() -> None:
    totals = [need(replace(PARTS, memory=gib << 30), 0).total for gib in (0, 32, 128, 1 << 20)]
    assert [more - totals[0] for more in totals] == [0, 2 * MIB, 8 * MIB, 8 * MIB]


def test_a_log_adds_to_the_need_if_it_is_large() -> None:
    assert need(replace(PARTS, log=MIB // 4), 0) == need(PARTS, 0)
    larger = need(replace(PARTS, log=8 * MIB), 0)
    # The text, its descriptors and the file that it is written to, but no memory dump.
    more = sum(row.bytes for row in larger.rows) - sum(row.bytes for row in need(PARTS, 0).rows)
    assert more == 50 * MIB - CAPTURE
    # Log and memory dump do not run at the same time: the larger one counts.
    assert need(replace(PARTS, log=MIB, memory=128 << 30), 0).total == (
        need(replace(PARTS, memory=128 << 30), 0).total
    )


def test_bounce_buffers_add_to_every_peak() -> None:
    assert need(replace(PARTS, bounce=8 * MIB), 0).total == need(PARTS, 0).total + 8 * MIB


CONFIG = "CONFIG_LOG_BUF_SHIFT=17\nCONFIG_LOG_CPU_MAX_BUF_SHIFT=12\n"


@pytest.mark.parametrize(
    ("cmdline", "config", "cpus", "expected"),
    [
        ("", CONFIG, 1, 128 << 10),
        ("", "", 1, 256 << 10),
        # Each processor adds 4 KiB if all of them need more than half of the rest.
        ("", CONFIG, 17, 128 << 10),
        ("", CONFIG, 18, 256 << 10),
        ("", CONFIG, 257, 2 << 20),
        ("", "", 8192, 64 << 20),
        ("x log_buf_len=16M y", CONFIG, 257, 16 << 20),
        ("log-buf-len=3000000", CONFIG, 1, 4 << 20),
        ("log_buf_len=0x1000000", CONFIG, 1, 16 << 20),
        ("log_buf_len=1M log_buf_len=2m log_buf_len=1k", CONFIG, 1, 2 << 20),
        ("log_buf_len=64K log_buf_len=", CONFIG, 1, 128 << 10),
        ("log_buf_len=x", CONFIG, 257, 2 << 20),
        ("log_buf_len=99G", CONFIG, 1, 2 << 30),
    ],
)
def test_the_size_of_the_log_buffer(cmdline: str, config: str, cpus: int, expected: int) -> None:
    assert log_buffer(cmdline, config, cpus) == expected


def test_a_region_can_touch_one_more_section_than_it_fills() -> None:
    large = need(replace(PARTS, kernel=168 * MIB), 0)
    assert large.total == need(PARTS, 0).total + 128 * MIB + 2 * MIB


@pytest.mark.parametrize(
    ("text", "expected"),
    [("MemTotal:       1016044 kB\nMemFree: 3 kB\n", 1016044 << 10), ("", 0), ("MemTotal: x", 0)],
)
def test_total(text: str, expected: int) -> None:
    assert total(text) == expected


sizes = st.integers(0, 1 << 34)


@given(
    parts=st.builds(Parts, sizes, sizes, sizes, sizes, sizes, st.just(Layout()), sizes, sizes),
    margin=st.integers(0, 400),
)
def test_the_need_is_the_sum_of_the_rows_in_whole_blocks(parts: Parts, margin: int) -> None:
    found = need(parts, margin)
    rows = sum(row.bytes for row in found.rows)
    assert found.margin.bytes == rows * margin // 100
    for size, exact in ((found.minimum, rows), (found.total, rows + found.margin.bytes)):
        assert size % ALIGNMENT == 0
        assert 0 <= size - exact < ALIGNMENT
    assert parts.kernel + parts.unpacked + max(parts.packed, parts.drivers) < found.minimum


def test_a_kernel_with_usb_built_in_has_more_data() -> None:
    plain, larger = (kernel_data(X86_64, "", "", built_in=each) for each in (False, True))
    assert (plain, larger - plain) == (KERNEL_DATA, BUILT_IN_DATA)
    one, two = (need(replace(PARTS, data=data), 0).rows[1].bytes for data in (plain, larger))
    assert two - one == BUILT_IN_DATA


DISTRIBUTION, SAVING = "CONFIG_MEMCG=y\n", "irqpoll cgroup.memory=nokmem no5lvl"


@pytest.mark.parametrize(
    ("architecture", "config", "cmdline", "less"),
    [
        (X86_64, DISTRIBUTION, SAVING, 4),
        (X86_64, "# CONFIG_MEMCG is not set\n", SAVING, 2),
        # An image of an older version, or a machine with more memory than four levels reach.
        (X86_64, DISTRIBUTION, "irqpoll no5lvl", 2),
        (X86_64, DISTRIBUTION, "cgroup.memory=nokmem", 2),
        (X86_64, "", "", 0),
        (AARCH64, DISTRIBUTION, SAVING, 0),
    ],
)
def test_parameters_save_memory_of_the_kernel(
    architecture: Architecture, config: str, cmdline: str, less: int
) -> None:
    data = kernel_data(architecture, config, cmdline, built_in=False)
    assert data == KERNEL_DATA - less * MIB


@pytest.mark.parametrize(
    ("filesystems", "expected"),
    [(("vfat", "exfat"), CAPTURE), (("vfat", "ext4"), CAPTURE + JOURNAL),
     (("xfs",), CAPTURE + JOURNAL), ((), CAPTURE + JOURNAL)],
)  # fmt: skip
def test_a_journal_takes_memory(filesystems: tuple[str, ...], expected: int) -> None:
    """An image of an older version does not say which file systems it mounts."""
    assert capture(filesystems) == expected
    larger = need(replace(PARTS, capture=capture(filesystems)), 0)
    assert larger.rows[3].bytes == expected


def test_the_small_crash_kernel() -> None:
    """Its options are in its .config."""
    assert kernel_data(X86_64, "# CONFIG_SLUB_TINY is not set\n", "", built_in=False) == KERNEL_DATA
    assert kernel_data(X86_64, "CONFIG_SLUB_TINY=y\n", "", built_in=True) == SMALL_DATA
    assert X86_64.layout_of("CONFIG_SMP=y\n") == Layout(4 << 10, 128 * MIB)
    assert X86_64.layout_of("CONFIG_X86_SMALL_SECTIONS=y\n").section == 16 * MIB
    config = (Path(__file__).parents[2] / "kernel/config/crash.config").read_text()
    assert kernel_data(X86_64, config, "", built_in=True) == SMALL_DATA
    assert X86_64.layout_of(config).section == 16 * MIB


@pytest.mark.parametrize(
    ("config", "mib"),
    [("", 6), ("CONFIG_ARM64_4K_PAGES=y\n", 6), ("CONFIG_ARM64_16K_PAGES=y\n", 1.5),
     ("CONFIG_ARM64_64K_PAGES=y\n", 1.5)],
)  # fmt: skip
def test_larger_pages_have_a_smaller_map(config: str, mib: float) -> None:
    """64 bytes for each page of three sections, which have 512 MiB where a page has 64 KiB."""
    found = need(replace(PARTS, layout=AARCH64.layout_of(f"CONFIG_SMP=y\n{config}")), 0)
    assert found.rows[-1] == Row("memory map", int(mib * MIB))


def test_the_table_of_the_need() -> None:
    text = table(Need((Row("kernel", 8 * MIB), Row("image", 2 * MIB)), Row("margin", 0)))
    assert text.splitlines() == [
        f"kernel         8.0 MiB  {'#' * 32}",
        f"image          2.0 MiB  {'#' * 8}",
        "margin         0.0 MiB",
        "to reserve    10.0 MiB",
    ]
