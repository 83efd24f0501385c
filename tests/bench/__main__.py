# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs all benchmarks, or the named ones: `make bench`.

Writes build/bench/report.json, .md and .html after each figure. What an earlier run measured stays
there until it is measured again.
"""

import argparse
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from tests.bench import (
    cpu,
    growth,
    installed,
    memories,
    parameters,
    peers,
    report,
    restoring,
    rows,
    screen,
    sizing,
    writing,
)
from tests.bench.report import Measured
from tests.vmtest import rootfs

CHECKOUT = Path(__file__).parents[2]
OUTPUT = CHECKOUT / "build/bench"


def measure_build() -> Iterator[Measured]:
    """Measure the CPU time of a build."""
    yield from cpu.measure(rootfs.build())


def measure_writing() -> Iterator[Measured]:
    """Measure what the crash side needs to write a dump."""
    yield from writing.measure(rootfs.build())


def measure_restore() -> Iterator[Measured]:
    """Compare restore with gpg alone, where the disk counts, and where it does not."""
    for place in (tempfile.gettempdir(), "/dev/shm"):  # noqa: S108 - the one in memory
        yield from restoring.measure(place)
    yield from restoring.curve()


def measure_installed() -> Iterator[Measured]:
    """Measure how builds and status grow with kernels and modules that are installed."""
    yield from installed.measure(rootfs.build())


def measure_rows() -> Iterator[Measured]:
    """Measure what the reservation goes to; takes five minutes."""
    yield from rows.measure(rootfs.build())


def measure_parameters() -> Iterator[Measured]:
    """Measure what kernel parameters save; takes ten minutes, on a busy host more."""
    yield from parameters.measure(rootfs.build())


def measure_memories() -> Iterator[Measured]:
    """Measure how costs grow with the memory of the machine; takes half an hour."""
    yield from memories.measure(rootfs.build())


def measure_peers(source: Path | None) -> Iterator[Measured]:
    """Compare crashes and images with kdump-tools and kdump-utils; takes half an hour."""
    if source is None:
        print("peers: kdump-utils is left out (name its sources with --kdump-utils)", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        yield from peers.measure(peers.peers(source), Path(directory))


def measure_sizing(kernel: sizing.Kernel) -> Iterator[Measured]:
    """Compare the computed need with the smallest reservation; takes about an hour."""
    yield from _sized(kernel, None)


def measure_floor(kernel: sizing.Kernel) -> Iterator[Measured]:
    """The same for the usual image, FAT and 1 GiB only; takes ten minutes."""
    yield from _sized(kernel, 1)


def _sized(kernel: sizing.Kernel, count: int | None) -> Iterator[Measured]:
    with tempfile.TemporaryDirectory() as directory:
        for row in islice(sizing.measure(kernel, Path(directory)), count):
            yield from sizing.figures(row)


def measure_screen() -> Iterator[Measured]:
    """Measure what a large screen costs on a kernel like Fedora's; takes 20 minutes."""
    with tempfile.TemporaryDirectory() as directory:
        for row in screen.measure(Path(directory)):
            yield from screen.figures(row)


def measure_growth() -> Iterator[Measured]:
    """Measure how the region grows under load; takes half an hour."""
    outcomes = growth.measure([])
    yield from growth.figures(outcomes)
    if any(outcome.failures for outcome in outcomes):
        raise SystemExit(
            "bench: growing failed more often than allowed (see build/bench/kernel.json)"
        )


BENCHES: dict[str, Callable[[], Iterator[Measured]]] = {
    "build": measure_build,
    "writing": measure_writing,
    "restore": measure_restore,
    "installed": measure_installed,
    "rows": measure_rows,
    "parameters": measure_parameters,
    "memories": measure_memories,
    "growth": measure_growth,
    "screen": measure_screen,
    "sizing-stock": partial(measure_sizing, "stock"),
    "sizing-patched": partial(measure_sizing, "patched"),
    "sizing-small": partial(measure_sizing, "small"),
}
# Not all run by default: each is the first row of another one.
SHORT: dict[str, Callable[[], Iterator[Measured]]] = {
    f"floor-{kernel}": partial(measure_floor, kernel) for kernel in sizing.KERNELS
}
PEERS = "peers"


def commit() -> str:
    """The commit that is measured, with a + if files differ from it."""
    words = ["git", "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"  # in a tarball


def versions() -> dict[str, str]:
    """The programs of this machine that every figure depends on."""
    said = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True,
                          check=True).stdout  # fmt: skip
    return {"Linux": platform.release(), "Python": platform.python_version(),
            "QEMU": said.split()[3]}  # fmt: skip


def recorded(figures: Iterable[Measured]) -> Iterator[report.Row]:
    """Each figure with the state of this machine while it was measured."""
    load = os.getloadavg()[0]
    for measured in figures:
        now = os.getloadavg()[0]
        taken = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        yield report.Row(measured, report.Host(taken, commit(), max(load, now), versions()))
        load = now


def keep(row: report.Row) -> None:
    """Put a row into the reports. Raises ValueError if there is a report.json of another format."""
    saved = OUTPUT / "report.json"
    rows = report.from_json(saved.read_text()) if saved.exists() else ()
    rows = report.merged(rows, [row])
    for name, render in (("json", report.to_json), ("md", report.to_markdown),
                         ("html", report.to_html)):  # fmt: skip
        draft = OUTPUT / f"report.{name}.new"
        draft.write_text(render(rows) + "\n")
        draft.rename(OUTPUT / f"report.{name}")


def main() -> None:
    """Run the named benchmarks, or all."""
    known = [*BENCHES, PEERS, *SHORT]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--kdump-utils", type=Path, metavar="DIRECTORY",
                        help="its sources, for peers")  # fmt: skip
    options = parser.parse_args()
    beside = partial(measure_peers, options.kdump_utils)
    benches: dict[str, Callable[[], Iterator[Measured]]] = {**BENCHES, PEERS: beside, **SHORT}
    names = options.names or [*BENCHES, PEERS]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in names:
        for row in recorded(benches[name]()):
            keep(row)
            print(report.summary(row), flush=True)


if __name__ == "__main__":
    main()
