# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read from a vmcore without symbols: the log and the pages, of real layouts and forged."""

import struct
import tracemalloc
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_vmcoreinfo import TEXT, kdump
from tinykdump import cli
from tinykdump.vmcore import log, pages, ringbuffer
from tinykdump.vmcore.facts import Kind, Record
from tinykdump.vmcoreinfo import Info, parse

# Of Linux 6.12 on x86-64, as far as it says where the log is and what pages are.
VMCOREINFO = """\
PAGESIZE=4096
SYMBOL(prb)=1000
SYMBOL(mem_section)=100000
LENGTH(mem_section)=262144
SIZE(mem_section)=32
OFFSET(mem_section.section_mem_map)=0
NUMBER(SECTION_SIZE_BITS)=27
SIZE(page)=64
OFFSET(page.flags)=0
OFFSET(page._refcount)=52
OFFSET(page.mapping)=24
OFFSET(page._mapcount)=48
OFFSET(page.private)=40
OFFSET(page.compound_head)=8
SIZE(printk_ringbuffer)=88
OFFSET(printk_ringbuffer.desc_ring)=0
OFFSET(printk_ringbuffer.text_data_ring)=48
SIZE(prb_desc_ring)=48
OFFSET(prb_desc_ring.count_bits)=0
OFFSET(prb_desc_ring.descs)=8
OFFSET(prb_desc_ring.infos)=16
OFFSET(prb_desc_ring.head_id)=24
OFFSET(prb_desc_ring.tail_id)=32
SIZE(prb_desc)=24
OFFSET(prb_desc.state_var)=0
OFFSET(prb_desc.text_blk_lpos)=8
OFFSET(prb_data_blk_lpos.begin)=0
OFFSET(prb_data_blk_lpos.next)=8
SIZE(printk_info)=88
OFFSET(printk_info.ts_nsec)=8
OFFSET(printk_info.text_len)=16
OFFSET(prb_data_ring.size_bits)=0
OFFSET(prb_data_ring.data)=8
OFFSET(atomic_long_t.counter)=0
NUMBER(PG_lru)=5
NUMBER(PG_swapbacked)=17
NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)=-184549376
NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)=-268435456
NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)=-201326592
NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)=-251658240
"""
INFO = parse(VMCOREINFO.encode())


@dataclass
class Space:
    """Memory of a crashed kernel, by its addresses."""

    areas: dict[int, bytearray] = field(default_factory=dict)
    read_bytes: int = 0

    def read(self, address: int, size: int) -> bytes:
        self.read_bytes += size
        for start, area in self.areas.items():
            if start <= address and address + size <= start + len(area):
                return bytes(area[address - start : address - start + size])
        raise ValueError(f"no memory at {address:#x}")


RING, DESCS, INFOS, DATA = 0x2000, 0x3000, 0x8000, 0x20000


def with_log(lines: list[tuple[bytes, int, int]], *, bits: int = 4, size_bits: int = 12) -> Space:
    """A log's rings with these texts, times (ns) and levels, which may have gone round."""
    count, size = 1 << bits, 1 << size_bits
    descs, infos, data = bytearray(24 * count), bytearray(88 * count), bytearray(size)
    position = 0
    for number, (text, nanoseconds, level) in enumerate(lines):
        block = (8 + len(text) + 7) & ~7
        if position % size + block > size:
            position += size - position % size
        at = position % size
        data[at : at + 8 + len(text)] = struct.pack("<Q", number) + text
        slot = number % count
        struct.pack_into("<QQQ", descs, 24 * slot, number | 2 << 62, position, position + block)
        struct.pack_into("<QQHBB", infos, 88 * slot, number, nanoseconds, len(text), 0, level << 5)
        position += block
    head = len(lines) - 1
    ring = struct.pack("<I4xQQQQ8x", bits, DESCS, INFOS, head, max(0, head - count + 1))
    ring += struct.pack("<I4xQ", size_bits, DATA)
    pointer = bytearray(struct.pack("<Q", RING))
    return Space({0x1000: pointer, RING: bytearray(ring.ljust(88, b"\0")), DESCS: descs,
                  INFOS: infos, DATA: data})  # fmt: skip


def test_the_log() -> None:
    space = with_log([(b"Linux version 6", 0, 5), (b"one\ntwo", 1_500_000_000, 4),
                      (b"\x1b[2J\xff", 2 * 10**9, 0), (b"", 3 * 10**9, 6)])  # fmt: skip
    assert ringbuffer.records(INFO, space.read) == (
        Record(0.0, 5, "Linux version 6"), Record(1.5, 4, "one"), Record(1.5, 4, "two"),
        Record(2.0, 0, "\\x1b[2J\ufffd"),
    )  # fmt: skip


def test_a_log_that_has_gone_round() -> None:
    """The oldest lines have been written over; what remains is in order."""
    lines = [(b"line %d" % number, number * 10**9, 6) for number in range(40)]
    texts = [record.text for record in ringbuffer.records(INFO, with_log(lines).read)]
    assert texts == [f"line {number}" for number in range(24, 40)]


def test_a_descriptor_without_a_text_of_its_own() -> None:
    """One that is being written, one that was written over, and one that has no text."""
    space = with_log([(b"line %d" % number, 0, 6) for number in range(5)])
    descs = space.areas[DESCS]
    struct.pack_into("<Q", descs, 24 * 1, 1)  # desc_reserved
    struct.pack_into("<Q", descs, 24 * 2, 99 | 2 << 62)
    struct.pack_into("<QQ", descs, 24 * 3 + 8, 1, 1)
    texts = [record.text for record in ringbuffer.records(INFO, space.read)]
    assert texts == ["line 0", "line 4"]


@pytest.mark.parametrize(
    ("place", "value"),
    [(RING, 60), (RING, 0), (RING + 8, 1 << 63), (RING + 48, 63), (RING + 48, 0), (0x1000, 5)],
)
def test_rings_that_lie(place: int, value: int) -> None:
    """Sizes have limits, and no address is trusted."""
    space = with_log([(b"x", 0, 0)])
    area = max(start for start in space.areas if start <= place)
    struct.pack_into("<Q", space.areas[area], place - area, value)
    with pytest.raises(ValueError):
        ringbuffer.records(INFO, space.read)
    assert space.read_bytes < 1 << 16


@given(st.binary(min_size=88, max_size=88), st.binary(max_size=400))
def test_any_rings(ring: bytes, content: bytes) -> None:
    """They end, with lines that can be printed or with ValueError."""
    space = with_log([(b"line %d" % number, 0, 6) for number in range(20)])
    good = space.areas[RING]
    space.areas[RING] = bytearray(a or b for a, b in zip(ring, good, strict=True))
    space.areas[DESCS][: len(content)] = content[: len(space.areas[DESCS])]
    try:
        found = ringbuffer.records(INFO, space.read)
    except ValueError:
        return
    assert len(found) <= 64 << 4
    assert all(record.text.isprintable() for record in found)


def page(
    *, flags: int = 0, mapping: int = 0, mapcount: int = -1, count: int = 1, private: int = 0,
    head: int = 0,
) -> bytes:  # fmt: skip
    """A struct page."""
    fields = struct.pack("<QQ8xQ8xQiI8x", flags, head, mapping, private, mapcount, count)
    assert len(fields) == 64
    return fields


LRU, SWAPBACKED, HEAD = 1 << 5, 1 << 17, 1 << 6
SLAB, BUDDY, HUGE = -184549376, -268435456, -201326592


def with_pages(some: list[bytes]) -> Space:
    """One section of memory that begins with these pages; the rest is the kernel's."""
    section = 1 << 27 >> 12
    descriptors = b"".join(some) + page() * (section - len(some))
    roots = struct.pack("<QQ", 0x200000, 0).ljust(4096 * 8, b"\0")
    root = struct.pack("<Q", 0x10000000 | 0b111).ljust(32, b"\0").ljust(4096, b"\0")
    return Space({0x100000: bytearray(roots), 0x200000: bytearray(root),
                  0x10000000: bytearray(descriptors)})  # fmt: skip


def test_pages_by_kind() -> None:
    some = [
        page(mapcount=BUDDY, count=0, private=3), *[page(count=0)] * 7,
        page(flags=LRU | SWAPBACKED, mapping=0x1001), page(flags=SWAPBACKED, mapping=0x1001),
        *[page(flags=LRU, mapping=0x1000)] * 5,
        page(flags=LRU | SWAPBACKED, mapping=0x1000),
        page(mapcount=SLAB, flags=HEAD), *[page(head=0x10000001)] * 3,
        page(mapcount=HUGE, flags=HEAD), page(head=0x10000001),
        page(count=0),
    ]  # fmt: skip
    found = pages.by_kind(INFO, with_pages(some).read)
    sizes = {kind.name: kind.size // 4096 for kind in found.kinds}
    assert sizes == {
        "anonymous": 2, "page cache": 5, "shared, in swap cache": 1, "huge pages": 2,
        "slab (kernel objects)": 4, "kernel and other": 32768 - len(some), "free": 9,
    }  # fmt: skip
    assert found.source == "counted from page descriptors"


def test_sections_that_list_more_memory_than_there_is() -> None:
    """They do not make the report take memory."""
    values = INFO.values | {"NUMBER(SECTION_SIZE_BITS)": "36"}
    space = with_pages([])
    space.areas[0x200000] = bytearray(struct.pack("<Q", 0x10000000 | 0b111) * 512)
    tracemalloc.start()
    found = pages.by_kind(Info(values), space.read)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.source == "counted from every 512th block of page descriptors"
    assert most < 16 << 20


def test_pages_of_older_kernels() -> None:
    """A slab is a flag, and the type of a page a bit that is cleared in -1."""
    values = INFO.values | {"NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": "-129", "NUMBER(PG_slab)": "9"}
    del values["NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)"]
    some = [page(flags=1 << 9), page(mapcount=-129, count=0, private=1), page(count=0)]
    found = pages.by_kind(Info(values), with_pages(some).read)
    sizes = {kind.name: kind.size // 4096 for kind in found.kinds}
    assert (sizes["slab (kernel objects)"], sizes["free"]) == (1, 2)


def test_a_large_memory_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_BATCHES", 16)
    found = pages.by_kind(INFO, with_pages([]).read)
    assert found.kinds == (Kind("kernel and other", 1 << 27),)
    assert found.source == "counted from every 4th block of page descriptors"


@pytest.mark.parametrize(
    "changes",
    [{"SIZE(page)": "0"}, {"SIZE(page)": "99999"}, {"OFFSET(page.flags)": "-8"}, {"PAGESIZE": "x"},
     {"SIZE(mem_section)": "-1"}, {"NUMBER(SECTION_SIZE_BITS)": "999"}, {"NUMBER(PG_lru)": "64"},
     {"SYMBOL(mem_section)": "0"}, {"SYMBOL(mem_section)": "-5"}, {"PAGESIZE": "0"},
     {"OFFSET(page.mapping)": "255"}],
)  # fmt: skip
def test_page_layouts_that_lie(changes: dict[str, str]) -> None:
    try:
        found = pages.by_kind(Info(INFO.values | changes), with_pages([]).read)
    except ValueError:
        return
    assert sum(kind.size for kind in found.kinds) <= 1 << 28


CRASH = """\
systemd[1]: Started something.
BUG: kernel NULL pointer dereference, address: 0000000000000000
Oops: 0002 [#1] PREEMPT SMP NOPTI
CPU: 3 UID: 0 PID: 4711 Comm: my task Kdump: loaded Tainted: G        W  OE      6.12.1 #1  Debian
Call Trace:
 <TASK>
 ? __die+0x23/0x70
 crash_me+0x10/0x20 [broken]
 </TASK>
Modules linked in: broken(OE) ext4 jbd2 [last unloaded: other]
Kernel panic - not syncing: Fatal exception""".splitlines()


def records(lines: list[str], level: int = 6) -> tuple[Record, ...]:
    return tuple(Record(float(number), level, text) for number, text in enumerate(lines))


# Of Debian 13's kernel for arm64, in QEMU.
ARM64_CRASH = """\
sysrq: Trigger a crash
Kernel panic - not syncing: sysrq triggered crash
CPU: 0 UID: 0 PID: 191 Comm: mark-19b7084fd6 Kdump: loaded Not tainted 6.12.117+deb13-arm64 #1
Hardware name: linux,dummy-virt (DT)
Call trace:
 dump_backtrace+0xd8/0x130
 el0t_64_sync+0x190/0x198
Starting crashdump kernel...
Bye!""".splitlines()


def test_a_call_trace_without_an_end() -> None:
    task = log.crashing(records(ARM64_CRASH))
    assert task and (task.pid, task.name, task.cpu) == (191, "mark-19b7084fd6", 0)
    assert task.stack == ("dump_backtrace+0xd8/0x130", "el0t_64_sync+0x190/0x198")


def test_what_the_log_says() -> None:
    found = records(["boring"] * 1000 + CRASH)
    assert log.reason(found) == "Fatal exception"
    assert log.taint(found) == "G W OE"
    assert log.modules(found) == ("broken(OE)", "ext4", "jbd2")
    task = log.crashing(found)
    assert task and (task.pid, task.name, task.cpu) == (4711, "my task", 3)
    assert task.stack == ("? __die+0x23/0x70", "crash_me+0x10/0x20 [broken]")
    shown = [record.text for record in log.around(found)]
    assert shown == ["boring"] * 11 + CRASH


def test_a_log_without_a_panic() -> None:
    assert (log.reason(()), log.crashing(()), log.taint(()), log.modules(())) == (
        "",
        None,
        None,
        (),
    )
    assert log.timeline((), 10) == ()
    assert log.reason(records(["x", "BUG: soft lockup"])) == "BUG: soft lockup"
    assert len(log.around(records(["x"] * 1000))) <= 120
    line = "CPU: 0 PID: 1 Comm: swapper/0 Not tainted 6.1.0 #1"
    assert log.taint(records([line])) == ""


def test_the_timeline() -> None:
    lines = [Record(0.0, 6, ""), Record(1.0, 3, ""), Record(1.1, 4, ""), Record(9.9, 0, "")]
    assert log.timeline(lines, 5) == ((1, 1, 2 - 1), (0, 0, 0), (0, 0, 0), (0, 0, 0), (1, 0, 0))
    same = [replace(lines[0]), replace(lines[0])]
    assert log.timeline(same, 3) == ((0, 0, 2), (0, 0, 0), (0, 0, 0))


def test_a_log_in_a_file() -> None:
    """As makedumpfile writes it, also with the caller's ID (CONFIG_PRINTK_CALLER)."""
    text = b"[    0.000000] Linux version 6\n[   46.889309] [    T268]  </TASK>\nmore\x1b\n\xff\n"
    assert log.parse(text) == (
        Record(0.0, 6, "Linux version 6"), Record(46.889309, 6, " </TASK>"),
        Record(46.889309, 6, "more\\x1b"), Record(46.889309, 6, "\ufffd"),
    )  # fmt: skip
    assert log.parse(b"") == ()


@given(st.lists(st.text(max_size=80), max_size=20))
def test_any_log(texts: list[str]) -> None:
    """Also one that is made to keep a regular expression busy."""
    found = records([*texts, "CPU: 1 PID: 1 Comm: " + "Tainted: " * 20 + "A " * 300])
    for read in (log.reason, log.around, log.crashing, log.taint, log.modules):
        read(found)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"not a core" * 100, "is no vmcore (name a file that restore"), (b"", "is no vmcore ("),
     (kdump(TEXT), "drgn cannot read"), (None, "Is a directory (name a vmcore")],
)  # fmt: skip
def test_no_vmcore(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes | None, says: str
) -> None:
    core = tmp_path / "vmcore"
    core.mkdir() if content is None else core.write_bytes(content)
    assert cli.main(["report", str(core), "--html", str(tmp_path / "page.html")]) == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("tinykdump: ")
    assert says in err
    assert not (tmp_path / "page.html").exists()
