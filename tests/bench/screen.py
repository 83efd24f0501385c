# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the smallest reservation in which a kernel with Fedora's built-ins saves a dump.

On machines with EFI and screens of different sizes: with the drivers of the firmware's screen in
the crash kernel, and without them, as tinykdump loads it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench import sizing
from tests.bench.report import Measured
from tests.bench.sizing import Kind, Tries
from tests.vmtest import kernels, rootfs, snapshot
from tests.vmtest.machine import DISPLAY, OVMF, Disk, screen_mode
from tests.vmtest.vm import running
from tinykdump.memory import MIB

LEFT_OUT, DRAWS = Kind("vfat", "lzo"), Kind("vfat", "lzo", draws=True)
# Without its drivers, the screen does not count: the largest one is enough to show it.
ROWS = (((1920, 1080), (DRAWS,)), ((3840, 2160), (LEFT_OUT, DRAWS)))
BYTES_PER_PIXEL = 4


@dataclass(frozen=True)
class Found:
    """One row of the table; sizes in MiB."""

    width: int  # pixels
    height: int
    draws: bool  # see Kind
    smallest: int  # that captured; STEP_MIB less did not
    need: int  # computed for that crash kernel, without the margin
    reserved: int  # with it


def measure(workdir: Path) -> Iterator[Found]:
    """Every row. Raises RuntimeError when no size is enough."""
    kernel = kernels.build(kernels.FEDORA)
    plain = kernel.machine(rootfs.build(), "crashkernel=256M", firmware=OVMF, memory_mib=1024)
    with running(plain, workdir / "prepare") as vm:
        images = sizing.prepare(vm, (LEFT_OUT, DRAWS))
    disks = tuple(Disk(d.id, d.overlay(workdir / "prepare"), "qcow2") for d in plain.disks)
    for (width, height), kinds in ROWS:
        asleep = workdir / f"asleep-{width}"
        sized = replace(plain, disks=disks, devices=(DISPLAY,), reboots=False)
        sized = sized.with_append(screen_mode(width, height))
        with running(sized, workdir / f"boot-{width}") as vm:
            snapshot.save(vm, asleep)
        for kind in kinds:
            screen = BYTES_PER_PIXEL * width * height if kind.draws else 0
            need = sizing.need_of(*images[kind], 1, screen)
            smallest = Tries(sized, asleep, kind, workdir).smallest(need.minimum // MIB)
            yield Found(width, height, kind.draws, smallest,
                        need.minimum // MIB, need.total // MIB)  # fmt: skip


def figures(row: Found) -> Iterator[Measured]:
    """The figures of one row. Pure."""
    drivers = "started" if row.draws else "left out"
    group = f"reservation, screen {row.width}x{row.height}, drivers {drivers}"
    for name, size in (("captures at", row.smallest), ("need", row.need),
                       ("reserved", row.reserved)):  # fmt: skip
        yield Measured(group, name, "MiB", (float(size),), "python -m tests.bench screen")
