# SPDX-License-Identifier: GPL-2.0-or-later
"""How the CPU time of a build and of status grows with the kernels and modules that are installed.

On the host, with the tree of the guests' root, as the other figures of a build.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.cpu import seconds_of, writable
from tests.bench.report import Measured
from tests.vmtest.rootfs import Root
from tinykdump import keys, state
from tinykdump.host import Host

KERNELS = (1, 4, 16)
MODULES = (0, 16000, 64000)  # beside those of the kernel's package
RUNS = 3

# Of the running system, what status cannot do without.
_INTERFACES = {
    "sys/kernel/kexec_crash_size": "0\n",
    "sys/kernel/kexec_crash_loaded": "0\n",
    "proc/cmdline": "crashkernel=192M\n",
    "proc/meminfo": "MemTotal: 1000000 kB\n",
}


def measure(root: Root) -> Iterator[Measured]:
    """Both curves."""
    with writable(root.tree) as tree, tempfile.TemporaryDirectory() as compiled:
        keys.machine_key(Host(tree), create=True)
        for name, text in {**_INTERFACES, "proc/sys/kernel/osrelease": f"{root.kver}\n"}.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
        environment = {"PATH": os.environ["PATH"], "TINYKDUMP_ROOT": str(tree),
                       "PYTHONPYCACHEPREFIX": compiled}  # fmt: skip
        program = [sys.executable, "-m", "tinykdump"]
        # With the exit status of each: the machine is not armed.
        commands = {"-b": ([*program, "-b", "--kernel", root.kver], 0),
                    "status": ([*program, "status"], 1)}  # fmt: skip

        def figures(group: str, label: str) -> Iterator[Measured]:
            for name, (command, status) in commands.items():
                runs = [seconds_of(command, environment, status) for _ in range(RUNS + 1)][1:]
                yield Measured(f"tinykdump {name}, {group}", label, "s of CPU", tuple(runs),
                               "python -m tests.bench installed")  # fmt: skip

        present = 1
        for number in KERNELS:
            for extra in range(present, number):
                add_kernel(tree, root.kver, f"6.1.{extra}")
            present = number
            yield from figures("installed kernels", str(number))
        place = tree / "usr/lib/modules" / root.kver
        packaged = sum(1 for _ in place.rglob("*.ko*"))
        for more in MODULES:
            add_modules(place / "extra", more)
            yield from figures("modules of the kernel", str(packaged + more))


def add_kernel(tree: Path, kver: str, name: str) -> None:
    """Install another kernel with an image, by copies of the one that is there."""
    modules = tree / "usr/lib/modules" / name
    modules.mkdir()
    shutil.copy(tree / f"boot/vmlinuz-{kver}", modules / "vmlinuz")
    images = tree / str(state.IMAGES).lstrip("/")
    shutil.copytree(images / kver, images / name)
    manifest = images / name / "manifest.json"
    manifest.write_text(manifest.read_text().replace(kver, name))


def add_modules(directory: Path, number: int) -> None:
    """Add modules of which only the names count: no dump needs them."""
    directory.mkdir(exist_ok=True)
    for each in range(number):
        (directory / f"other{each}.ko.xz").touch()
