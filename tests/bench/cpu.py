# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures the CPU time of `tinykdump -b` on the host, for the kernel of the guests."""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.report import Measured
from tests.vmtest.rootfs import Root
from tinykdump import keys
from tinykdump.host import Host


@contextmanager
def writable(tree: Path) -> Iterator[Path]:
    """A writable overlay on the cached tree."""
    with tempfile.TemporaryDirectory() as directory:
        upper, work, merged = (Path(directory) / name for name in ("upper", "work", "merged"))
        for path in (upper, work, merged):
            path.mkdir()
        layers = f"lowerdir={tree},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, merged], check=True)
        try:
            yield merged
        finally:
            subprocess.run(["umount", merged], check=True)


RUNS = 5


def seconds_of(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """User and system seconds of a command and what it starts. Raises CalledProcessError."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def build_seconds(root: Root, runs: int = 1) -> tuple[float, ...]:
    """CPU seconds of builds whose inputs are in the page cache.

    Because the build is for another machine, the image has the drivers of all USB host
    controllers, and the build does not run the image's programs.
    """
    command = [sys.executable, "-m", "tinykdump", "-b", "--kernel", root.kver]
    with writable(root.tree) as tree:
        keys.machine_key(Host(tree), create=True)
        environment = os.environ | {"TINYKDUMP_ROOT": str(tree)}
        return tuple(seconds_of(command, environment) for _ in range(runs + 1))[1:]


def measure(root: Root) -> Iterator[Measured]:
    """A build on the host."""
    command = f"TINYKDUMP_ROOT=... python3 -m tinykdump -b --kernel {root.kver}"
    yield Measured("build of an image", "tinykdump -b, warm", "s of CPU",
                   build_seconds(root, RUNS), command)  # fmt: skip
