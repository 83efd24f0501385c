# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures the CPU time of builds on the host, for the kernel of the guests."""

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
BUILD, LOOK, PYTHON = "tinykdump -b", "tinykdump -l, up to date, without kexec", "python3 alone"

# What tinykdump -l does for an image that is up to date, until it calls kexec.
_UP_TO_DATE = """
import os, sys
from tinykdump import actions, cli
from tinykdump.config_files import load_config
from tinykdump.host import Host
host = Host.given(os.environ)
assert not actions.build_image(host, load_config(host, {}, None), sys.argv[1])[1]
"""


def seconds_of(command: Sequence[str], environment: Mapping[str, str], status: int = 0) -> float:
    """User and system seconds of a command and what it starts.

    Raises RuntimeError if its exit status is not ``status``.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds(root: Root, runs: int = RUNS) -> Mapping[str, tuple[float, ...]]:
    """CPU seconds of builds whose inputs are in the page cache, and of a look at the image.

    Because the build is for another machine, the image has the drivers of all USB host
    controllers, and the build does not run the image's programs. As in a package, Python finds
    compiled modules.
    """
    python = [sys.executable, "-c", "pass"]
    build = [sys.executable, "-m", "tinykdump", "-b", "--kernel", root.kver]
    look = [sys.executable, "-c", _UP_TO_DATE, root.kver]
    commands = {BUILD: build, LOOK: look, PYTHON: python}
    with writable(root.tree) as tree, tempfile.TemporaryDirectory() as compiled:
        keys.machine_key(Host(tree), create=True)
        environment = {"PATH": os.environ["PATH"], "TINYKDUMP_ROOT": str(tree),
                       "PYTHONPYCACHEPREFIX": compiled}  # fmt: skip
        for command in commands.values():
            seconds_of(command, environment)
        rounds = [{name: seconds_of(command, environment) for name, command in commands.items()}
                  for _ in range(runs)]  # fmt: skip
    return {name: tuple(each[name] for each in rounds) for name in commands}


def measure(root: Root) -> Iterator[Measured]:
    """A build on the host, with the kernel of the guests."""
    for name, values in seconds(root).items():
        yield Measured("build of an image", name, "s of CPU", values, "python -m tests.bench build")
