# SPDX-License-Identifier: GPL-2.0-or-later
"""How time, dump and need grow with the memory of the machine: guests of 1 to 64 GiB.

A guest's memory that nobody touches takes none on the host, but its memory map does: 16 MiB for
each GiB. Sizes whose map would take more than half of what the host has free are left out, with a
line that says so.
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.bench import bare, sizing
from tests.bench.report import Measured
from tests.vm import service
from tests.vmtest.rootfs import Root
from tinykdump.memory import MIB

COMMAND = "python -m tests.bench memories"
MEMORY_GIB = (1, 4, 16, 64)
MAP_MIB = 16  # for each GiB
# Of what the system kernel and QEMU need beside the map.
OTHERS_MIB = 1024
MB = 1e6


def fits(memory_gib: int, available_mib: int) -> bool:
    """Whether the host has room for a guest of that size. Pure."""
    return memory_gib * MAP_MIB <= (available_mib - OTHERS_MIB) // 2


def available_mib() -> int:
    """What the host has available."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) >> 10


def measure(root: Root) -> Iterator[Measured]:
    """A crash of each size. Raises RuntimeError if one of them saves no dump."""
    with tempfile.TemporaryDirectory() as name, bare.built(root) as image:
        header = image.kernel.read_bytes()[:4096]
        settings = (root.tree / f"boot/config-{root.kver}").read_text()
        for gib in MEMORY_GIB:
            if not fits(gib, available_mib()):
                print(f"memories: {gib} GiB are left out: the host has no room", flush=True)
                continue
            need = sizing.need_of(image.manifest, header, settings, gib)
            reserved = need.total // MIB
            place = Path(name) / str(gib)
            done = bare.crash(root, replace(image, need=need), place, reserved_mib=reserved,
                              memory_mib=gib << 10)  # fmt: skip
            shutil.rmtree(place)
            if not done.size:
                raise RuntimeError(f"no dump of {gib} GiB: {done.console[-2000:]}")
            yield from figures(gib, done, need.minimum // MIB)


def figures(gib: int, done: bare.Crashed, need_mib: int) -> Iterator[Measured]:
    """The figures of one size. Pure."""
    at = service.stages(done.console)
    dumping = at["saving the memory"]
    saved = next(seconds for stage, seconds in at.items() if stage.startswith("saved as"))
    note = f"{done.reserved} MiB reserved"
    for group, unit, value in (
        ("memory of the machine: time to makedumpfile", "s", dumping),
        ("memory of the machine: time of makedumpfile and writing", "s", saved - dumping),
        ("memory of the machine: dump", "MB", done.size / MB),
        ("memory of the machine: need", "MiB", float(need_mib)),
    ):
        yield Measured(group, f"{gib} GiB", unit, (value,), COMMAND, note=note)
