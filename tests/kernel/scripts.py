# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots a kernel with a script in its initramfs, and reads the script's results on the console."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import fakehost
from tests.vmtest import foreign, initramfs, qemu
from tests.vmtest.errors import MachineLost
from tests.vmtest.initramfs import Tree
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import Disk, Machine
from tests.vmtest.qemu import Qemu
from tests.vmtest.rootfs import Root

SCRIPTS = Path(__file__).parent / "guest"
# The timer check can fail on a busy host. The kernel writes only warnings to the console, because
# the tests read the script's lines there.
APPEND = ("panic=-1", "no_timer_check", "loglevel=5")
SELFTESTS = ("kselftest/ktap_helpers.sh", "kexec/test_crash_resize.sh")
# The modules that scripts load. The image contains them with their dependencies.
MODULES = ("virtio_pci", "virtio_blk", "ext4", "fuse")


_MIB = {"M": 1, "G": 1024}


@dataclass(frozen=True)
class Scenario:
    name: str
    # tests/kernel/guest/SCRIPT.sh runs in the guest.
    script: str
    append: str = ""
    memory: str = "1G"
    # Whether that is enough for a kernel with KASAN, which takes an eighth and more
    fits_kasan: bool = True
    # The size of an empty ext4 on /dev/vda in MiB; 0: no disk
    disk: int = 0
    # Regular expressions of lines that must be on the console
    expect: tuple[str, ...] = ()
    # The time limit, which is enough under emulation on a busy machine
    seconds: int = 600
    # As Machine.cpu
    cpu: str = ""

    def machine(self, kernel: Kernel, image: Path, directory: Path) -> Machine:
        """The guest, as a machine whose disk is in `directory`."""
        disks = (Disk("disk", directory / "disk.img"),) if self.disk else ()
        return Machine(
            kernel.directory / "vmlinuz",
            image,
            (f"console={kernel.platform.console}", *APPEND, f"test={self.script}",
             *self.append.split()),
            platform=kernel.platform,
            memory_mib=_MIB[self.memory[-1]] * int(self.memory[:-1]),
            cpus=2,
            cpu=self.cpu,
            model=kernel.platform.old_board,
            disks=disks,
            reboots=False,
            lifetime=2 * self.seconds,
        )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    scenario: Scenario
    failures: tuple[str, ...]
    figures: Mapping[str, str]


def judge(scenario: Scenario, console: str) -> Outcome:
    """The outcome of a scenario, read from its console. Pure."""
    text = console.replace("\r", "")
    failures = re.findall(r"^(?:not ok|Bail out!).*$", text, re.MULTILINE)
    failures += re.findall(r"^.*(?:WARNING: |BUG: |Oops: ).*$", text, re.MULTILINE)
    failures += [
        f"the console does not have: {pattern}"
        for pattern in scenario.expect
        if not re.search(pattern, text, re.MULTILINE)
    ]
    exits = re.findall(r"^GUEST-EXIT (\d+)$", text, re.MULTILINE)
    if not exits:
        failures.append("the machine was lost: it did not say how the script ended")
    elif exits != ["0"]:
        failures.append(f"the script ended with {exits[-1]}")
    figures = dict(re.findall(r"^FIGURE (\S+) (.*)$", text, re.MULTILINE))
    return Outcome(scenario, tuple(failures), figures)


@dataclass(frozen=True)
class Programs:
    """Where the programs of the guest come from."""

    busybox: Path
    # kexec and its libraries: path in the guest -> file
    kexec: Mapping[str, Path]
    # What makes programs for the guest
    compiler: str


def of_this_machine() -> Programs:
    kexec = fakehost.real("kexec")
    files = {str(path).lstrip("/"): path for path in fakehost.libraries_of(kexec)}
    return Programs(fakehost.real("busybox"), {"bin/kexec": kexec, **files}, "gcc")


def of_root(root: Root, compiler: str) -> Programs:
    """Those of a root file system, which can be of another architecture."""
    kexec = root.tree / "usr/sbin/kexec"
    files = {"bin/kexec": kexec, **foreign.libraries_of(root, kexec)}
    return Programs(root.busybox, files, compiler)


def make_image(
    selftests: Mapping[str, str], kernel: Kernel, image: Path, programs: Programs
) -> None:
    """Make the guest's initramfs, which also contains the crash kernel and its image.

    `selftests` has the text of each script by its path in the source of the selftests.
    """
    busybox = programs.busybox
    with tempfile.TemporaryDirectory() as name:
        crash, first = Tree(Path(name) / "crash"), Tree(Path(name) / "first")
        crash.busybox(busybox)
        crash.put(SCRIPTS / "crash-init", "init")
        crash.pack(Path(name) / "crash.img")

        first.busybox(busybox)
        first.put(SCRIPTS / "init", "init")
        for script in sorted(SCRIPTS.glob("*.sh")):
            first.put(script, f"guest/{script.name}")
        for path, text in selftests.items():
            first.put(text, f"selftests/{path}")
        _add_modules(kernel, first)
        _add_helpers(first, programs.compiler)
        for place, file in programs.kexec.items():
            first.put(file, place)
        first.put(kernel.directory / "vmlinuz", "boot/vmlinuz")
        first.put(Path(name) / "crash.img", "boot/crash.img")
        first.pack(image)


def _add_modules(kernel: Kernel, tree: Tree) -> None:
    """Add the modules in the directory that modprobe uses."""
    place = f"lib/modules/{kernel.kver}"
    tree.put(kernel.modules / "modules.dep", f"{place}/modules.dep")
    for path in initramfs.load_order(kernel.modules, MODULES):
        tree.put(path, f"{place}/{path.relative_to(kernel.modules)}")


def _add_helpers(tree: Tree, compiler: str) -> None:
    """Add the C programs for what busybox cannot do, linked statically: there are no libraries."""
    for source in sorted(SCRIPTS.glob("*.c")):
        command = [compiler, "-static", "-O2", "-Wall", "-Wextra", "-Werror"]
        program = tree.root / "bin" / source.stem
        subprocess.run([*command, "-o", program, source], check=True)


def boot(scenario: Scenario, kernel: Kernel, image: Path, directory: Path) -> Outcome:
    """Boot a scenario. Always ends: the guest powers off, a panic resets it, and time runs out."""
    directory.mkdir(parents=True)
    if scenario.disk:
        command = ["mke2fs", "-q", "-t", "ext4", f"{directory}/disk.img", f"{scenario.disk}M"]
        subprocess.run(command, check=True)
    machine = scenario.machine(kernel, image, directory)
    lost: tuple[str, ...] = ()
    with qemu.started(Qemu, machine, directory) as vm:
        try:
            vm.wait_for_end(scenario.seconds)
        except MachineLost as error:
            # The console shows how far it got.
            lost = (error.reason,)
        console = vm.console
    for disk in machine.disks:
        disk.image.unlink()
        disk.overlay(directory).unlink()
    outcome = judge(scenario, console)
    return Outcome(scenario, (*lost, *outcome.failures), outcome.figures)
