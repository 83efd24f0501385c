# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs all benchmarks: `make bench`.

Prints figures as soon as they are measured, and writes them to build/bench.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

from tests import fakehost
from tests.bench import cpu, growth, restoring, screen, sizing, writing
from tests.vmtest import rootfs

OUTPUT = Path(__file__).parents[2] / "build/bench"


def measure_build() -> None:
    """Measure the CPU time of a build."""
    print(f"tinykdump -b, warm: {cpu.build_seconds(rootfs.build()):.2f} s of CPU", flush=True)


def measure_writing() -> None:
    """Measure what the crash side needs to write a dump, with the busybox of the guests."""
    os.environ[fakehost.BUSYBOX] = str(rootfs.build().tree / "usr/bin/busybox")
    print(writing.measure(), flush=True)


def measure_restore() -> None:
    """Compare restore with gpg alone, where the disk counts, and where it does not."""
    for place in (tempfile.gettempdir(), "/dev/shm"):  # noqa: S108 - the one in memory
        print(restoring.measure(place), flush=True)


def measure_sizing(kernel: sizing.Kernel) -> None:
    """Compare the computed need with the smallest reservation; takes about an hour."""
    _size(kernel, "sizing", None)


def measure_floor(kernel: sizing.Kernel) -> None:
    """The same for the usual image, FAT and 1 GiB only; takes ten minutes."""
    _size(kernel, "floor", 1)


def _size(kernel: sizing.Kernel, name: str, count: int | None) -> None:
    rows: list[sizing.Found] = []
    with tempfile.TemporaryDirectory() as directory:
        for row in islice(sizing.measure(kernel, Path(directory)), count):
            rows.append(row)
            (OUTPUT / f"{name}-{kernel}.json").write_text(sizing.report(rows) + "\n")
    print(sizing.table(rows), flush=True)


def measure_screen() -> None:
    """Measure what a large screen costs on a kernel like Fedora's; takes 20 minutes."""
    rows: list[screen.Found] = []
    with tempfile.TemporaryDirectory() as directory:
        for row in screen.measure(Path(directory)):
            rows.append(row)
            (OUTPUT / "screen.txt").write_text(screen.table(rows) + "\n")
    print(screen.table(rows), flush=True)


def measure_growth() -> None:
    """Measure how the region grows under load; takes half an hour."""
    if not growth.measure([]):
        raise SystemExit(
            "bench: growing failed more often than allowed (see build/bench/kernel.json)"
        )


BENCHES: dict[str, Callable[[], None]] = {
    "build": measure_build,
    "writing": measure_writing,
    "restore": measure_restore,
    "growth": measure_growth,
    "screen": measure_screen,
    "sizing-stock": partial(measure_sizing, "stock"),
    "sizing-patched": partial(measure_sizing, "patched"),
    "sizing-small": partial(measure_sizing, "small"),
}
# Not all run by default: each is the first row of another one.
SHORT: dict[str, Callable[[], None]] = {
    f"floor-{kernel}": partial(measure_floor, kernel) for kernel in sizing.KERNELS
}


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    known = {**BENCHES, **SHORT}
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    names = parser.parse_args().names or list(BENCHES)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in names:
        known[name]()


if __name__ == "__main__":
    main()
