# SPDX-License-Identifier: GPL-2.0-or-later
"""CPU time of `tinykdump -b` on this machine, for the kernel of the guests' root."""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.vmtest.rootfs import Root


@contextmanager
def writable(tree: Path) -> Iterator[Path]:
    """A tree over the cached one, which stays as it is."""
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


def build_seconds(root: Root) -> float:
    """User and system seconds of a build whose inputs are in the page cache.

    All USB host controllers are in the image, and its programs are not tried out: both follow
    from building for another machine than this one.
    """
    command = [sys.executable, "-m", "tinykdump", "-b", "--kernel", root.kver]
    with writable(root.tree) as tree:
        environment = os.environ | {"TINYKDUMP_ROOT": str(tree)}
        seconds = []
        for _ in range(2):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return seconds[-1]
