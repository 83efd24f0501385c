# SPDX-License-Identifier: GPL-2.0-or-later
"""What is read from the consoles of the guests that show their memory; nothing boots here."""

from pathlib import Path

import pytest

from tests.bench import bare, memories, parameters, rows
from tests.bench.parameters import Boot
from tests.vmtest.machine import Stick

CONSOLE = """\
[    0.000000] Linux version 6.12.117 of the system kernel
[    0.000000] memblock_alloc_try_nid: 9999999 bytes align=0x40 nid=-1 old+0x6d/0x260
[    0.000000] Linux version 6.12.117 of the crash kernel
[    0.000000] memblock_reserve: [0x000000000550b680-0x000000000570b67f] memblock_alloc_range_nid+0xe1/0x180
[    0.000000] memblock_alloc_try_nid: 2097152 bytes align=0x40 nid=-1 from=0x0 max_addr=0x0 sparse_init+0x6d/0x260
[    0.000000] memblock_alloc_try_nid_raw: 4096 bytes align=0x1000 nid=0 from=0x0 max_addr=0x0 vmemmap_alloc_block_zero.constprop.0+0x11/0x50
[    0.000000] memblock_alloc_try_nid: 65536 bytes align=0x40 nid=-1 from=0x0 max_addr=0x0 alloc_large_system_hash+0x219/0x2c0
[    0.000000] memblock_alloc_try_nid: 65536 bytes align=0x40 nid=-1 from=0x0 max_addr=0x0 alloc_large_system_hash+0x219/0x2c0
[    0.000000] memblock_alloc_try_nid: 104 bytes align=0x40 nid=-1 from=0x0 max_addr=0x0 firmware_map_add_early+0x2d/0x60
[    0.777143] Memory: 35432K/93688K available (16384K kernel code, 2499K rwdata, 11832K rodata, 4180K init, 4880K bss, 55156K reserved, 0K cma-reserved)
[    3.827618] Run /init as init process
memory: meminfo
MemTotal:          49968 kB
MemFree:           30000 kB
memory: slabinfo
memory: vmallocinfo
memory: end
memory: meminfo
MemTotal:          49968 kB
MemFree:            9968 kB
MemAvailable:       9000 kB
Buffers:             100 kB
Cached:            15000 kB
Unevictable:        9000 kB
AnonPages:          4000 kB
Slab:               8000 kB
KernelStack:         800 kB
PageTables:          100 kB
VmallocUsed:        5000 kB
Percpu:              300 kB
memory: slabinfo
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables
kernfs_node_cache  13290  13290    136   30    1 : tunables    0    0    0 : slabdata    443    443      0
task_struct           61     72   8448    3    8 : tunables    0    0    0 : slabdata     24     24      0
memory: vmallocinfo
0x00000000c1888cca-0x00000000a6482753 4198400 pcpu_create_chunk+0x19b/0x1b0 pages=1024 vmalloc vpages N0=1024
0x00000000235d8063-0x000000002f71bef1 2101248 bpf_prog_pack_alloc+0x2b0/0x3c0 pages=512 vmalloc N0=512
0x00000000c14004a1-0x0000000017fc8c27   73728 pcpu_create_chunk+0x75/0x1b0 pages=17 vmalloc N0=17
memory: end
memory: meminfo
MemTotal: 1 kB
"""  # noqa: E501 - as the kernel prints it


def test_memory_is_read_where_least_is_available() -> None:
    seen = rows.parse(CONSOLE.replace("\n", "\r\n"))
    assert seen.early == {"sparse_init": 2048, "vmemmap_alloc_block_zero": 4,
                          "alloc_large_system_hash": 128}  # fmt: skip
    assert seen.slabs == {"kernfs_node_cache": 443 * 4, "task_struct": 24 * 8 * 4}
    assert seen.areas == {"pcpu_create_chunk": 1041 * 4, "bpf_prog_pack_alloc": 2048}
    assert seen.fields["MemFree"] == 9968


def test_the_rows_are_all_of_the_reservation() -> None:
    table = rows.table(rows.parse(CONSOLE), 92)
    assert sum(table.values()) == 92 * 1024
    assert table["memory map"] == 2052
    assert table["not given to the kernel"] == 92 * 1024 - 93688
    assert table["stick: cached pages"] == 6100
    assert table["vmalloc: modules and others"] == 4200
    groups = {each.group for each in rows.figures(rows.parse(CONSOLE), 92)}
    assert len(groups) == 4


@pytest.mark.parametrize("console", [
    "", CONSOLE.replace("memory: end", "x"), CONSOLE.replace("Memory:", "x"),
    CONSOLE[: CONSOLE.index("memory: meminfo")],
])  # fmt: skip
def test_a_console_without_the_memory(console: str) -> None:
    with pytest.raises(ValueError, match="the guest showed no memory on its console"):
        rows.parse(console)


def test_a_boot_shows_memory_and_time() -> None:
    assert parameters.parse(CONSOLE) == Boot(free=30000, started=3.827618)
    lists = "  pagesets\n    cpu: 0\n              count:    76\r\n              count:    329\r\n"
    assert parameters.parse(CONSOLE + lists) == Boot(free=30000 + 405 * 4, started=3.827618)
    with pytest.raises(ValueError, match="the guest did not start"):
        parameters.parse("[    0.1] Kernel panic")


@pytest.mark.parametrize(("words", "expected"), [
    ("b=1", ("a c d=2", True)), ("a d=2", ("b=1 c", True)), ("e", ("a b=1 c d=2 e", False)),
    ("b=2", ("a b=1 c d=2 b=2", False)), ("c e", ("a b=1 c d=2 c e", False)),
])  # fmt: skip
def test_a_parameter_is_left_out_or_added(words: str, expected: tuple[str, bool]) -> None:
    assert parameters.variant("a b=1 c d=2", words) == expected


@pytest.mark.parametrize(("taken", "saved"), [(True, (-1.0, 0.5)), (False, (1.0, -0.5))])
def test_what_a_parameter_saves(taken: bool, saved: tuple[float, float]) -> None:
    usual, other = Boot(free=9216, started=3.5), Boot(free=10240, started=4.0)
    found = list(parameters.figures("x=1", "", usual, other, taken=taken))
    assert tuple(each.best for each in found) == saved
    assert {each.name for each in found} == {f"x=1 ({'taken' if taken else 'not taken'})"}


def test_every_parameter_that_is_measured_can_be_told_from_the_others() -> None:
    words = [word for each in parameters.PARAMETERS for word in each.split()]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(("gib", "available", "expected"), [
    (1, 2048, True), (64, 3072, True), (64, 3070, False), (64, 0, False),
])  # fmt: skip
def test_guests_that_the_host_has_room_for(gib: int, available: int, expected: bool) -> None:
    assert memories.fits(gib, available) == expected


def test_figures_of_a_size() -> None:
    console = ("[ 9.1] tinykdump: [9.00 s] saving the memory\n"
               "[ 30.1] tinykdump: [30.50 s] saved as tinykdump/x/20261127T000000Z\n")  # fmt: skip
    crashed = bare.Crashed(console, 90_000_000, 92)
    found = {each.group: each.best for each in memories.figures(16, crashed, 84)}
    assert list(found.values()) == [9.0, 21.5, 90.0, 84.0]


def test_the_memory_of_a_guest_can_be_more_than_the_hosts() -> None:
    medium = Stick("stick", Path("/stick.img"))
    machine = bare.machine_of(
        Path("/vmlinuz"), Path("/system.img"), 92, 65536, medium, counts=False
    )
    assert machine.arguments == ("-object", "memory-backend-ram,id=ram,size=65536M,reserve=off")
    assert "crashkernel=92M" in machine.append
