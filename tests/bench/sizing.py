# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares the computed need with the smallest reservation in which a capture succeeds.

For each kernel, prepares one system with an image for each kind of stick and dump. Boots it with
each memory size and saves a snapshot. Each try resumes the snapshot, sets the reservation, loads
one of the images and crashes.
"""

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tests.bench.report import Measured
from tests.vm import service
from tests.vmtest import kernels, rootfs, snapshot, stick
from tests.vmtest.errors import MachineLost
from tests.vmtest.machine import Disk, Machine, Stick
from tests.vmtest.vm import VM, running
from tinykdump import memory
from tinykdump.image import manifest
from tinykdump.image.manifest import Manifest
from tinykdump.memory import MIB, Need

# The last one is the small crash kernel, for Debian's.
Kernel = Literal["stock", "patched", "small"]
KERNELS: tuple[Kernel, ...] = ("stock", "patched", "small")
FILESYSTEMS: tuple[stick.FileSystem, ...] = ("vfat", "ext4")
COMPRESSIONS = ("lzo", "zstd")
MEMORY_GIB = (1, 4, 16)

STEP_MIB = 2  # reservations are multiples of this
CAPTURES = 2
STICK_MIB = 3072
BUILD_SECONDS = 1200.0
# How far above the guess a size is looked for.
LIMIT_MIB = 32
# Until the crash kernel looks for the stick; in too little memory it prints nothing.
UP_SECONDS = 200.0
CRASH_SECONDS = 1200.0

# Loads an image that is kept in the guest: DIRECTORY SIZE (bytes).
_LOAD = """
import json, subprocess, sys
from pathlib import Path
directory, size = sys.argv[1:]
Path("/sys/kernel/kexec_crash_size").write_text(size)
manifest = json.loads(Path(directory, "manifest.json").read_text())
image = f"{directory}/initramfs-{manifest['sha256'][:16]}.img"
subprocess.run(["kexec", "--load-panic", "--kexec-syscall-auto", manifest["kernel"],
                f"--initrd={image}", f"--append={manifest['cmdline']}"],
               check=True)
"""


@dataclass(frozen=True)
class Kind:
    """What distinguishes the images."""

    filesystem: stick.FileSystem
    compression: str
    # Whether the crash kernel starts the drivers of the firmware's screen, as tinykdump does not.
    draws: bool = False

    @property
    def directory(self) -> str:
        """The directory of this image in the guest."""
        drawing = "-draws" if self.draws else ""
        return f"/var/lib/sizing/{self.filesystem}-{self.compression}{drawing}"


KINDS = tuple(Kind(filesystem, compression)
              for filesystem in FILESYSTEMS for compression in COMPRESSIONS)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """One row of the table; sizes in MiB."""

    kernel: Kernel
    filesystem: str
    compression: str
    memory_gib: int
    smallest: int  # that captured; STEP_MIB less did not
    need: int  # computed, without the margin
    reserved: int  # what tinykdump reserves: with it

    @property
    def ratio(self) -> float:
        """The reservation as a multiple of the smallest one."""
        return self.reserved / self.smallest


def measure(kernel: Kernel, workdir: Path) -> Iterator[Found]:
    """Every row of one kernel. Raises RuntimeError when no size is enough."""
    machine = _machine(kernel)
    with running(machine, workdir / "prepare") as vm:
        images = prepare(vm, KINDS, kernels.build(kernels.SMALL) if kernel == "small" else None)
    disks = tuple(Disk(d.id, d.overlay(workdir / "prepare"), "qcow2") for d in machine.disks)
    guess = 0
    for gib in MEMORY_GIB:
        asleep = workdir / f"asleep-{gib}"
        sized = replace(machine, disks=disks, memory_mib=gib << 10, reboots=False)
        with running(sized, workdir / f"boot-{gib}") as vm:
            snapshot.save(vm, asleep)
        for kind, (image, header, settings) in images.items():
            need = need_of(image, header, settings, gib)
            tries = Tries(sized, asleep, kind, workdir)
            guess = tries.smallest(guess or need.minimum // MIB)
            yield Found(kernel, kind.filesystem, kind.compression, gib, guess,
                        need.minimum // MIB, need.total // MIB)  # fmt: skip


def _machine(kernel: Kernel) -> Machine:
    root = rootfs.build()
    if kernel != "patched":
        return root.machine("crashkernel=256M")
    return kernels.build().machine(root)


def prepare(
    vm: VM, kinds: Sequence[Kind], small: kernels.Kernel | None = None
) -> Mapping[Kind, tuple[Manifest, bytes, str]]:
    """Install tinykdump and build an image of each kind.

    Returns the manifest of each, and the header and the .config of its kernel.

    With ``small``, the images are those of that crash kernel.
    """
    service.install(vm, keys=service.cached_key_pair())
    vm.put(_LOAD.encode(), "/root/load")
    kver = small.kver if small else vm.run(["uname", "-r"]).text.strip()
    if small:
        service.install_small(vm, small.directory)
    images = {}
    built = ""
    for kind in kinds:
        text = f"[dump]\nfilesystems = {kind.filesystem}\ncompression = {kind.compression}\n"
        text += "[image]\nkernel = small\n" * bool(small)
        if text != built:
            vm.put(text.encode(), service.DROP_IN)
            vm.run(["tinykdump", "-b"], timeout=BUILD_SECONDS)
            built = text
        vm.run(["mkdir", "-p", "/var/lib/sizing"])
        vm.run(["cp", "-r", f"/var/lib/tinykdump/images/{kver}", kind.directory])
        if kind.draws:
            drm = ' initcall_blacklist=[^ "]*drm[^ "]*'
            vm.shell(f"sed -i 's/{drm}//' {kind.directory}/manifest.json")
        made = manifest.parse(vm.get(f"{kind.directory}/manifest.json").decode(), kind.directory)
        header = vm.shell(f"head -c 4096 {shlex.quote(made.kernel)}").stdout
        places = (f"{Path(made.kernel).parent}/config", f"/boot/config-{kver}")
        settings = vm.run(["cat", *places], check=False).text  # only one of them is there
        images[kind] = (made, header, settings)
    vm.run(["sync"])
    return images


def need_of(
    image: Manifest, header: bytes, settings: str, memory_gib: int, screen: int = 0
) -> Need:
    """The computed need; ``screen`` is the crash kernel's copy of the screen, in bytes."""
    return memory.of_image(image, header, settings, machine=memory_gib << 30, screen=screen)


@dataclass(frozen=True)
class Tries:
    """Crashes of one machine with one image, at different sizes."""

    machine: Machine
    asleep: Path
    kind: Kind
    workdir: Path

    def smallest(self, guess_mib: int) -> int:
        """The smallest size in MiB that is enough, searched from ``guess_mib``.

        Because the order in which drivers start varies, a size is enough only if CAPTURES of them
        succeed. Raises RuntimeError if LIMIT_MIB more than the guess is not enough.
        """
        size = guess_mib // STEP_MIB * STEP_MIB
        done = 0
        while self.captures(size - STEP_MIB):
            size, done = size - STEP_MIB, 1
        while size <= guess_mib + LIMIT_MIB:
            if all(self.captures(size) for _ in range(CAPTURES - done)):
                return size
            size, done = size + STEP_MIB, 0
        raise RuntimeError(f"{self.kind}: captures fail even in {size - STEP_MIB} MiB")

    def captures(self, size_mib: int) -> bool:
        """Whether a crash kernel in a reservation of that size writes a complete dump."""
        place = self.workdir / "try"
        place.mkdir()
        try:
            done = self._crash(size_mib, place)
        finally:
            shutil.rmtree(place)
        kind = f"{self.kind.filesystem}, {self.kind.compression}, {self.machine.memory_mib} MiB"
        drawing = ", draws" if self.kind.draws else ""
        print(f"  {kind}{drawing}: {size_mib} MiB {'captured' if done else 'failed'}", flush=True)
        return done

    def _crash(self, size_mib: int, place: Path) -> bool:
        kind = self.kind.filesystem
        image = stick.make(place / "stick.img", filesystem=kind, size_mib=STICK_MIB)
        with snapshot.resumed(self.machine, self.asleep, place / "vm") as vm:
            vm.plug(Stick("stick", image.path))
            vm.run(["python3", "/root/load", self.kind.directory, str(size_mib * MIB)])
            service.crash(vm, service.mark())
            try:
                vm.wait_for_console("tinykdump: .*waiting for the stick", UP_SECONDS)
                vm.wait_for_reboot(CRASH_SECONDS)
            except MachineLost:
                return False
        return any(dump.complete for dump in service.dumps(image, place / "copy"))


def figures(row: Found) -> Iterator[Measured]:
    """The figures of one row. Pure."""
    kind = f"{row.filesystem}, {row.compression}, {row.memory_gib} GiB"
    for name, size, note in (
        ("captures at", row.smallest, f"{row.smallest - STEP_MIB} MiB fail"),
        ("need", row.need, ""),
        ("reserved", row.reserved, f"{row.ratio:.2f} times the smallest"),
    ):
        yield Measured(f"reservation, {row.kernel} kernel, {kind}", name, "MiB", (float(size),),
                       f"python -m tests.bench sizing-{row.kernel}", note=note)  # fmt: skip
