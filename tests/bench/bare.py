# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that only crashes: its system is an initramfs, as in a rehearsal (src/crash/rehearse).

It boots in seconds, where the Debian guests of the other benchmarks take a minute, and its memory
can be as large as the host's address space: what the guest does not touch takes none. The image is
built on the host, for the kernel of the guests.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cpu import writable
from tests.vmtest import initramfs, qemu, stick
from tests.vmtest.errors import MachineLost
from tests.vmtest.machine import Machine, Stick
from tests.vmtest.rootfs import Root
from tinykdump import actions, keys, load, state
from tinykdump.config import FILE
from tinykdump.config_files import load_config
from tinykdump.host import Host
from tinykdump.image.manifest import Manifest
from tinykdump.memory import Need

REHEARSE = Path(__file__).parents[2] / "src/crash/rehearse"
# Of the rehearsal's init, with a shell.
APPLETS = ("cat", "mount", "rm", "sh", "tail")

CRASH_SECONDS = 3600.0
ENDED = "tinykdump: .*final action"
# The console is the serial port. Under TCG, a guest pauses for longer than the timer's check
# tolerates.
CONSOLE = ("console=ttyS0", "no_timer_check", "loglevel=7")


@dataclass(frozen=True)
class Image:
    """What a build on the host gave."""

    kernel: Path
    manifest: Manifest
    packed: bytes
    need: Need  # for a machine with 1 GiB


@contextmanager
def built(
    root: Root, settings: str = "", scripts: tuple[tuple[str, str], ...] = ()
) -> Iterator[Image]:
    """The image of the guests' kernel, with a configuration, and scripts that it names."""
    with writable(root.tree) as tree:
        host = Host(tree)
        for path, text in ((str(FILE), settings), *scripts):
            place = tree / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            place.chmod(0o755)
        (tree / "proc/meminfo").parent.mkdir(exist_ok=True)
        (tree / "proc/meminfo").write_text(f"MemTotal: {1 << 20} kB\n")
        keys.machine_key(host, create=True)
        made, _ = actions.build_image(host, load_config(host, {}), root.kver)
        yield Image(root.kernel, made, host.read(state.image_path(made)), load.need_of(host, made))


@dataclass(frozen=True)
class Crashed:
    """What came of a crash."""

    console: str
    size: int  # bytes of the dump on the stick; 0: it is not complete
    reserved: int  # MiB


def crash(
    root: Root, image: Image, workdir: Path, *, reserved_mib: int, memory_mib: int = 1024,
    counts: bool = False,
) -> Crashed:  # fmt: skip
    """Crash a guest with so much memory, and wait for the crash kernel's final action."""
    workdir.mkdir()
    medium = stick.make(workdir / "stick.img", size_mib=4096)
    machine = machine_of(image.kernel, _system(root, image, workdir), reserved_mib, memory_mib,
                         Stick("stick", medium.path), counts=counts)  # fmt: skip
    with qemu.started(qemu.Qemu, machine, workdir / "vm") as vm:
        try:
            vm.wait_for_console(ENDED, CRASH_SECONDS)
        except MachineLost:
            return Crashed(vm.console, 0, reserved_mib)
        vm.wait_for_end(CRASH_SECONDS)
        console = vm.console
    copied = workdir / "files"
    stick.extract(medium, copied)
    sizes = (path.stat().st_size for path in copied.glob("tinykdump/*/*Z/vmcore*"))
    return Crashed(console, sum(sizes), reserved_mib)


def machine_of(
    kernel: Path, system: Path, reserved_mib: int, memory_mib: int, medium: Stick, *, counts: bool
) -> Machine:
    """The guest. Pure."""
    return Machine(
        kernel=kernel,
        initrd=system,
        append=(*CONSOLE, "panic=-1", "printk.devkmsg=on", f"crashkernel={reserved_mib}M"),
        memory_mib=memory_mib,
        # Otherwise Linux refuses more memory than the host has.
        model="q35,memory-backend=ram",
        arguments=("-object", f"memory-backend-ram,id=ram,size={memory_mib}M,reserve=off"),
        sticks=(medium,),
        reboots=False,
        hand="init",
        counts=counts,
    )


def _system(root: Root, image: Image, workdir: Path) -> Path:
    """The initramfs of the system kernel, with the crash kernel and its image."""
    tree = initramfs.Tree(workdir / "system")
    for name in ("dev", "proc", "sys"):
        (tree.root / name).mkdir(parents=True)
    tree.busybox(root.busybox)
    for applet in APPLETS:
        if applet != "sh":
            (tree.root / "bin" / applet).symlink_to("busybox")
    tree.program("kexec")
    tree.put(REHEARSE, "init")
    (tree.root / "init").chmod(0o755)
    tree.put(image.kernel, "kernel")
    (tree.root / "image").write_bytes(image.packed)
    tree.put(" ".join((image.manifest.cmdline, *CONSOLE)), "cmdline")
    tree.put("0123456789abcdef", "id")
    packed = workdir / "system.img"
    tree.pack(packed)
    return packed
