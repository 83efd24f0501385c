# SPDX-License-Identifier: GPL-2.0-or-later
"""Demonstrates tinykdump in two acts: `make demo`, or one: `make demo KERNEL=stock|patched|small`.

A Debian system boots in QEMU with a USB stick. kernel-install makes tinykdump build and load the
image. A process with a random name crashes the kernel, and this program restores the dump from
the stick. The exit status is 0 only if that process is in the restored dump. What the user of that
system sees is in session.txt and session.svg; tests/session.py puts it into the documents.

The first act uses Debian's kernel, and tinykdump shrinks the reservation of crashkernel=. The
second act uses the kernel that kernel/ builds, without crashkernel=. It is left out if the source
of that kernel cannot be found. In the act "small", the small kernel saves the dump of Debian's.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kernel import progress
from kernel.build import Request, make_plan
from kernel.build import build as build_kernel
from kernel.run import KernelError, explain
from kernel.source import NoSourceError
from tests import session
from tests.bench import cpu
from tests.session import Recorder
from tests.vm import service, vmcore
from tests.vmtest import kernels, rootfs, stick
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import Machine, Stick
from tests.vmtest.vm import VM, running

OUTPUT = service.REPOSITORY / "build/demo"
MEMORY_MIB = 1024
RESERVED_MIB = 192
CRASH_SECONDS = 1200

ACTS = ("stock", "patched")
ALONE = "small"

# Of the guest's system: its name on the stick follows from it.
MACHINE_ID = b"0123456789abcdef0123456789abcdef\n"
# Where the guest backs up its secret key.
BACKUP = "/root/crash-key.asc"
# What it needs for the stick: udev does not run there.
DRIVERS = "xhci_pci usb_storage uas sd_mod vfat nls_ascii nls_cp437"

SCREEN = Console(highlight=False)


@contextmanager
def step(name: str, seconds: dict[str, float] | None = None) -> Iterator[None]:
    """Show that a step runs, then how long it took."""
    started = time.monotonic()
    if not SCREEN.is_terminal:
        SCREEN.print(f"{name} ...")
    with SCREEN.status(f"{name} ..."):
        yield
    done(name, started, seconds)


def done(name: str, started: float, seconds: dict[str, float] | None = None) -> None:
    """Print that a step is finished, and record its time."""
    took = round(time.monotonic() - started, 1)
    SCREEN.print(f"[green]✓[/green] {name} [dim]{took} s[/dim]")
    if seconds is not None:
        seconds[name] = took


@dataclass
class Report:
    """The content of an act's report.json."""

    kernel: str = ""
    crash_kernel: str = ""
    modules: list[str] = field(default_factory=list)
    image_packed_bytes: int = 0
    image_unpacked_bytes: int = 0
    build_in_guest_seconds: float = 0.0
    build_cpu_seconds: float = 0.0  # on this machine, with the inputs in the page cache
    reserved_at_boot_bytes: int = 0
    reserved_bytes: int = 0
    available_before_bytes: int = 0
    available_armed_bytes: int = 0
    available_unloaded_bytes: int = 0
    panic_to_makedumpfile_seconds: float = 0.0
    panic_to_saved_seconds: float = 0.0
    crash_kernel_stages: dict[str, float] = field(default_factory=dict)
    dump_bytes: int = 0
    key: str = ""
    mark: str = ""
    mark_in_log: bool = False
    mark_in_memory: bool = False
    steps: dict[str, float] = field(default_factory=dict)

    def step(self, name: str) -> AbstractContextManager[None]:
        """Run a step of this act."""
        return step(name, self.steps)


def main(acts: tuple[str, ...] = ACTS) -> int:
    """Perform these acts; 0 if each mark is in its restored dump."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    with step("get a Debian system with its kernel (minutes, the first time)"):
        root = rootfs.build()
    good = True
    for number, name in enumerate(acts, 1):
        kernel = None
        small = small_kernel() if name == ALONE else None
        if name == "patched":
            try:
                kernel = patched()
            except NoSourceError as error:
                if acts == (name,):
                    raise
                SCREEN.print(f"\nThe second act is left out: {error}", soft_wrap=True)
                break
        title = f"Act {number} of {len(acts)}: {kernel.kver if kernel else root.kver}"
        SCREEN.print(f"\n[bold]{title}[/bold]")
        good &= perform(root, kernel, small, OUTPUT / name)
    return 0 if good else 1


def chosen(name: str) -> tuple[str, ...]:
    """The act that `name` names, or both acts if it is empty."""
    if name and name not in (*ACTS, ALONE):
        raise SystemExit(f"demo: KERNEL={name} is none of {', '.join((*ACTS, ALONE))}")
    return (name,) if name else ACTS


def patched() -> Kernel:
    """The kernel of the second act. Raises NoSourceError if the source cannot be found."""
    return _built(Request(), "build the kernel (20 minutes, the first time)")


def small_kernel() -> Kernel:
    """The small crash kernel. Raises NoSourceError if the source cannot be found."""
    return _built(kernels.SMALL, "build the small crash kernel (10 minutes, the first time)")


def _built(request: Request, name: str) -> Kernel:
    """Build a kernel with the series. Raises NoSourceError if the source cannot be found."""
    SCREEN.print()
    with step("install the packages that a kernel build needs"):
        subprocess.run(["tools/deps", "kernel"], cwd=service.REPOSITORY, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    with step("get the source of Linux and apply the series to it"):
        plan = make_plan(request)
    started = time.monotonic()
    with progress.shown(SCREEN, name) as show:
        kernel = Kernel(build_kernel(plan, show))
    done(name, started)
    return kernel


def perform(root: rootfs.Root, kernel: Kernel | None, small: Kernel | None, output: Path) -> bool:
    """Perform an act on `kernel`, or on the root's own; returns whether the dump has the mark.

    `small` is the small crash kernel; without it, the kernel that crashes is the crash kernel.
    """
    output.mkdir(parents=True)
    report = Report(mark=service.mark())
    with report.step("make a FAT stick"):
        image = stick.make(output / "stick.img")
    report.kernel = kernel.kver if kernel else root.kver
    report.crash_kernel = small.kver if small else report.kernel
    drive = Stick("stick", image.path)
    if kernel:
        machine = kernel.machine(root, memory_mib=MEMORY_MIB, sticks=(drive,))
    else:
        reserve = f"crashkernel={RESERVED_MIB}M"
        machine = root.machine(reserve, memory_mib=MEMORY_MIB, sticks=(drive,))
    recorder = Recorder()
    try:
        crash(report, machine, small, recorder, output)
    finally:
        console = output / "vm/console.log"
        if console.exists():
            shutil.copy(console, output / "console.log")
    (output / "session.txt").write_text(session.text(recorder.shown))
    (output / "session.svg").write_text(session.picture(recorder.shown))
    check(report, image, output)
    with report.step("measure the build on this machine"):
        report.build_cpu_seconds = round(min(cpu.seconds(root, 1)[cpu.BUILD]), 2)
    (output / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    show(report, output)
    return report.mark_in_log and report.mark_in_memory


def crash(
    report: Report, machine: Machine, small: Kernel | None, recorder: Recorder, output: Path
) -> None:
    """Install tinykdump in the machine, arm it, crash, and restore the dump there."""
    kver = report.kernel
    with running(machine, output / "vm") as vm:
        with report.step(f"boot Linux {kver} with {MEMORY_MIB} MiB"):
            vm.wait_for_agent()
        report.reserved_at_boot_bytes = service.reserved(vm)
        with report.step("install tinykdump in it"):
            service.install(vm, configuration="[image]\nkernel = small\n" * bool(small))
            # Without it, the machine has another name on the stick after each reboot.
            vm.put(MACHINE_ID, "/etc/machine-id")
            vm.run(["sync", "/etc/machine-id", "/etc"])
            if small:
                service.install_small(vm, small.directory)
        report.available_before_bytes = service.available(vm)
        with report.step("kernel-install add: build, fit the reservation, load"):
            image = service.kernel_images(vm, kver)[0]
            added = recorder.run(vm, "kernel-install", "add", kver, image)
            recorder.run(vm, "tinykdump", "status")  # fails if this machine is not armed
        SCREEN.print(f"  [dim]{added.text.strip()}[/dim]")
        report.build_in_guest_seconds = round(added.seconds, 1)
        report.reserved_bytes = service.reserved(vm)
        report.available_armed_bytes = service.available(vm)
        manifest = service.manifest(vm, report.crash_kernel)
        report.key = manifest["key"]
        report.modules = manifest["modules"]
        report.image_packed_bytes = manifest["packed"]
        report.image_unpacked_bytes = manifest["unpacked"]
        with report.step("unload, estimate, and load again"):
            vm.run(["tinykdump", "unload"])
            report.available_unloaded_bytes = service.available(vm)
            recorder.run(vm, "tinykdump", "estimate")
            recorder.run(vm, "tinykdump", "--build", "--load")
        recorder.run(vm, "tinykdump", "key", "backup", BACKUP)
        import_key(vm.get(BACKUP), output / "gnupg")
        follow(report, vm)
        recorder.note("echo c > /proc/sysrq-trigger")
        with report.step("tinykdump list and restore, in the machine after its reboot"):
            vm.shell(f"modprobe -a {DRIVERS}; "
                     "until [ -e /sys/class/block/sda ]; do sleep 0.2; done")  # fmt: skip
            recorder.run(vm, "tinykdump", "list", "--mount")
            recorder.run(vm, "tinykdump", "restore", "/dev/sda")


def import_key(secret: bytes, home: Path) -> None:
    """Import the machine's secret key on this machine."""
    home.mkdir(mode=0o700)
    for words, given in ((["gpg", "--batch", "--import"], secret),
                         (["gpgconf", "--kill", "all"], b"")):  # fmt: skip
        subprocess.run([words[0], "--homedir", str(home), *words[1:]], input=given, check=True,
                       capture_output=True)  # fmt: skip


def follow(report: Report, vm: VM) -> None:
    """Crash, and watch the console for the stages of the crash kernel."""
    service.crash(vm, report.mark)
    vm.wait_for_console("Kernel panic", 300)
    panic = time.monotonic()
    with report.step("panic; the crash kernel saves the dump to the stick"):
        vm.wait_for_console("tinykdump: .*saving the memory|tinykdump: .*failed", CRASH_SECONDS)
        report.panic_to_makedumpfile_seconds = round(time.monotonic() - panic, 1)
        vm.wait_for_console("tinykdump: .*saved as|tinykdump: .*failed", CRASH_SECONDS)
        report.panic_to_saved_seconds = round(time.monotonic() - panic, 1)
        vm.wait_for_reboot(CRASH_SECONDS)
    report.crash_kernel_stages = service.stages(vm.console)


def check(report: Report, image: stick.Image, output: Path) -> None:
    """Restore the dump from the stick with the copy of the key, and look for the mark."""
    (dump,) = service.dumps(image, output / "stick")
    report.dump_bytes = dump.size
    with report.step("tinykdump restore on this machine: decrypt and reassemble"):
        service.restore(dump, output / "restored", output / "gnupg")
    core = output / "restored/vmcore"
    with report.step(f"look for {report.mark} in the restored dump"):
        log = vmcore.log(core)
        report.mark_in_log = report.mark in log
        report.mark_in_memory = vmcore.has_process(core, report.mark, memory_mib=MEMORY_MIB)
    SCREEN.print("\nThe last lines of the crashed kernel's log:")
    for line in log.splitlines()[-12:]:
        SCREEN.print(f"  {line}", markup=False, style="dim")


def show(report: Report, output: Path) -> None:
    """Print the summary."""
    mib = 1 << 20
    table = Table(title="\ntinykdump", show_header=False)
    rows = {
        "kernel": report.kernel,
        "crash kernel": report.crash_kernel,
        "image": f"{report.image_packed_bytes / 1e6:.2f} MB packed, "
        f"{report.image_unpacked_bytes / 1e6:.2f} MB unpacked",
        "modules": f"{len(report.modules)}: {', '.join(report.modules)}".rstrip(": "),
        "build": f"{report.build_cpu_seconds} s of CPU time on this machine, "
        f"{report.build_in_guest_seconds} s in the guest",
        "memory reserved": f"{report.reserved_bytes // mib} MiB, "
        f"of {report.reserved_at_boot_bytes // mib} MiB at boot",
        "memory available": f"{report.available_before_bytes // mib} MiB before, "
        f"{report.available_armed_bytes // mib} MiB armed, "
        f"{report.available_unloaded_bytes // mib} MiB after unload",
        "panic to dumping": f"{report.panic_to_makedumpfile_seconds} s",
        "panic to saved": f"{report.panic_to_saved_seconds} s",
        "dump on the stick": f"{report.dump_bytes / 1e6:.1f} MB, encrypted",
        "key": report.key,
        "mark": f"{report.mark}: "
        f"{'in the log' if report.mark_in_log else 'NOT in the log'}, "
        f"{'in memory' if report.mark_in_memory else 'NOT in memory'}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    SCREEN.print(table)
    SCREEN.print(f"\nreport: {output}/report.json, console: {output}/console.log")


if __name__ == "__main__":
    try:
        sys.exit(main(chosen(os.environ.get("KERNEL", ""))))
    except KernelError as error:
        sys.exit(explain(error, "demo"))
