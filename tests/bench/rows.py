# SPDX-License-Identifier: GPL-2.0-or-later
"""What each MiB of the reservation goes to, when the crash kernel has the least memory to spare.

A script of the image starts a process that looks at the memory while the dump is written. Whenever
less is available than ever before, it shows meminfo, slabinfo and vmallocinfo on the console. The
kernel itself says there what it is made of ("Memory: ..." in mm/mm_init.c), and with memblock=debug
what it allocates before it has an allocator. The process takes 0.2 MiB itself.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench import bare
from tests.bench.report import Measured
from tests.vmtest.rootfs import Root
from tinykdump.memory import MIB

COMMAND = "python -m tests.bench rows"
KIB, PAGE_KIB = 1024, 4
MOST = 10  # rows of a table of callers or slabs

SCRIPT = """#!/bin/sh
if [ "$1" != watch ]; then
	setsid "$0" watch </dev/null &
	# Until then it belongs to this script, and would end with it.
	until [ -e /run/watching ]; do
		usleep 100000
	done
	exit
fi
: >/run/watching
least=999999999
while usleep 200000; do
	while read -r name size unit && [ "$name" != MemAvailable: ]; do
		:
	done </proc/meminfo
	[ "$size" -lt $((least - 128)) ] || continue
	least=$size
	for file in meminfo slabinfo vmallocinfo; do
		echo "memory: $file"
		cat /proc/$file
	done >/dev/console
	echo "memory: end" >/dev/console
done
"""

_KERNEL = re.compile(
    r"Memory: \d+K/(?P<all>\d+)K available \((?P<code>\d+)K kernel code, (?P<data>\d+)K rwdata, "
    r"(?P<constants>\d+)K rodata, \d+K init, (?P<bss>\d+)K bss"
)
_EARLY = re.compile(
    r"memblock_\w*alloc\w*: (\d+) bytes .*? (\w+)(?:\.\w+)*\+0x[0-9a-f]+/0x[0-9a-f]+$", re.MULTILINE
)
_MAP = ("sparse_", "vmemmap_")
_FIELD = re.compile(r"^(\w+): +(\d+) kB$", re.MULTILINE)
_AREA = re.compile(r"^0x\S+ +\d+ (\w+)\S* .*?pages=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """The memory at its fullest, as the guest showed it; sizes in KiB."""

    kernel: Mapping[str, int]  # the groups of _KERNEL
    early: Mapping[str, int]  # function -> what it allocated before the kernel had an allocator
    fields: Mapping[str, int]  # of meminfo
    slabs: Mapping[str, int]
    areas: Mapping[str, int]  # function -> what it allocated with vmalloc


def parse(console: str) -> Seen:
    """Read the console of a guest. Raises ValueError if something is missing there."""
    text = console.replace("\r", "")
    crashed = text[text.rfind("] Linux version ") :]
    kernel = _KERNEL.search(crashed)
    _, *shown = crashed.split("memory: meminfo\n")
    whole = [each for each in shown if "memory: end\n" in each]
    if kernel is None or not whole:
        raise ValueError("the guest showed no memory on its console")
    meminfo, _, rest = whole[-1].partition("memory: slabinfo\n")
    slabs, _, rest = rest.partition("memory: vmallocinfo\n")
    early: Counter[str] = Counter()
    for size, function in _EARLY.findall(crashed):
        early[function] += int(size)
    areas: Counter[str] = Counter()
    for function, pages in _AREA.findall(rest.partition("memory: end\n")[0]):
        areas[function] += int(pages) * PAGE_KIB
    return Seen(
        kernel={name: int(size) for name, size in kernel.groupdict().items()},
        early={function: size // KIB for function, size in early.items() if size >= KIB},
        fields={name: int(size) for name, size in _FIELD.findall(meminfo)},
        slabs=_slabs(slabs),
        areas=areas,
    )


def _slabs(text: str) -> Mapping[str, int]:
    """slabinfo(5): pages of a slab, and after "slabdata" the number of slabs."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 14 and words[5].isdigit():
            found[words[0]] = int(words[5]) * int(words[14]) * PAGE_KIB
    return found


def table(seen: Seen, reserved_mib: int) -> Mapping[str, int]:
    """Each part of the reservation, and its KiB; the sum is the reservation. Pure."""
    kernel, fields = seen.kernel, seen.fields
    usable = fields["MemTotal"]
    parts = {
        "kernel: code": kernel["code"],
        "kernel: constants": kernel["constants"],
        "kernel: data and bss": kernel["data"] + kernel["bss"],
        "memory map": sum(
            size for function, size in seen.early.items() if function.startswith(_MAP)
        ),
    }
    parts["allocated before the allocator, and gaps"] = kernel["all"] - usable - sum(parts.values())
    parts["not given to the kernel"] = reserved_mib * KIB - kernel["all"]
    image = fields["Unevictable"]
    parts |= {
        "image: files": image,
        "stick: cached pages": fields["Cached"] + fields["Buffers"] - image,
        "programs": fields["AnonPages"],
        "slabs": fields["Slab"],
        "stacks of the kernel": fields["KernelStack"],
        "page tables": fields["PageTables"],
        "per-CPU memory": fields["Percpu"],
        "vmalloc: modules and others": fields["VmallocUsed"] - fields["KernelStack"],
        "free": fields["MemFree"],
    }
    return parts | {"pages of drivers, and others": reserved_mib * KIB - sum(parts.values())}


def figures(seen: Seen, reserved_mib: int) -> Iterator[Measured]:
    """The tables of the report. Pure."""
    note = f"1 GiB, {reserved_mib} MiB reserved, FAT stick; MemAvailable was at its least"
    groups = {
        "memory of the crash kernel at its fullest": table(seen, reserved_mib),
        "memory of the crash kernel: slabs": _largest(seen.slabs),
        "memory of the crash kernel: vmalloc, by function": _largest(seen.areas),
        "memory of the crash kernel: before the allocator, by function": _largest(seen.early),
    }
    for group, parts in groups.items():
        for name, size in parts.items():
            yield Measured(group, name, "MiB", (size / KIB,), COMMAND, note=note)


def _largest(parts: Mapping[str, int]) -> Mapping[str, int]:
    return dict(sorted(parts.items(), key=lambda part: -part[1])[:MOST])


def measure(root: Root) -> Iterator[Measured]:
    """One crash, with as much memory as tinykdump reserves. Raises RuntimeError if it fails."""
    settings = "[dump]\nscript = /root/watch\n[crashkernel]\nappend = memblock=debug\n"
    with (
        tempfile.TemporaryDirectory() as name,
        bare.built(root, settings, (("/root/watch", SCRIPT),)) as image,
    ):
        reserved = image.need.total // MIB
        crashed = bare.crash(root, image, Path(name) / "guest", reserved_mib=reserved)
        if not crashed.size:
            raise RuntimeError(f"no dump: {crashed.console[-2000:]}")
        yield from figures(parse(crashed.console), reserved)
