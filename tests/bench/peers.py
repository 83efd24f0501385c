# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures tinykdump beside what people use today, alternating in one run.

One Debian guest gets an image of each, and is saved. Each run resumes it, so that kernel, memory
and stick are the same, loads one of the images into the same reservation, and crashes. The dump
goes to the same ext4 stick, with the same compression (lzo) and dump level (31).

kdump-tools is Debian's package; its option usbcore.nousb is left out, because its dump would go to
another disk then. kdump-utils is Fedora's, for dracut: its sources are given by path. It is not
packaged for Debian, so what its package would do on Fedora is done here.
"""

import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.report import Measured
from tests.vm import service
from tests.vmtest import rootfs, snapshot, stick
from tests.vmtest.errors import MachineLost
from tests.vmtest.machine import Machine, Stick
from tests.vmtest.vm import VM, running

RUNS = 3  # the first one of each reads its snapshot from the disk
MEMORY_MIB = 1024
RESERVED_MIB = 256
BUILD_SECONDS = 1800.0
CRASH_SECONDS = 1800.0
MB = 1e6

RECIPE = rootfs.Recipe(packages=(*rootfs.PACKAGES, "dracut-core", "dracut-squash", "file",
                                 "initramfs-tools", "kdump-tools", "squashfs-tools"))  # fmt: skip

# What a guest needs for the stick: udev does not run there. ext4 mounts its root file system.
DRIVERS = "xhci_pci usb_storage uas sd_mod"
MOUNTED = "LABEL=TINYKDUMP /var/crash ext4 defaults 0 2"
LABEL = "LABEL=TINYKDUMP"
ROOT = "root=/dev/vda rw console=ttyS0 init=/usr/lib/systemd/systemd panic=5 no_timer_check"


@dataclass(frozen=True)
class Built:
    """What a peer's build gave: CPU seconds of the guest, and the image in the guest."""

    seconds: float
    command: str
    image: str


@dataclass(frozen=True)
class Peer:
    """What can save a dump."""

    name: str
    build: Callable[[VM, str], Built]  # of the kernel of that version
    load: str  # a script
    dumping: str  # a pattern: makedumpfile starts to save the memory
    saved: str
    dumps: str  # a pattern of pathlib for the files of the memory on the stick
    package: str = ""  # Debian's, for its version


@dataclass(frozen=True)
class Crash:
    """One crash; times in seconds."""

    dumping: float  # from the panic, by the wall clock
    saved: float
    dumping_clock: float  # from the start of the crash kernel, by its own clock
    saved_clock: float
    size: int  # bytes of the memory on the stick


# --- tinykdump --------------------------------------------------------------------------

# Loads an image that was set aside, whatever it needs, into what is reserved.
_LOAD = """
import json, subprocess, sys
from pathlib import Path
directory = Path(sys.argv[1])
manifest = json.loads((directory / "manifest.json").read_text())
image = directory / f"initramfs-{manifest['sha256'][:16]}.img"
subprocess.run(["kexec", "--load-panic", "--kexec-syscall-auto", manifest["kernel"],
                f"--initrd={image}", f"--append={manifest['cmdline']}"], check=True)
"""


def _tinykdump(directory: str, settings: str) -> Callable[[VM, str], Built]:
    def build(vm: VM, kver: str) -> Built:
        vm.put(_LOAD.encode(), "/root/load")
        vm.put(settings.encode(), service.DROP_IN)
        done = vm.run(["tinykdump", "-b"], timeout=BUILD_SECONDS)
        vm.run(["rm", "-rf", directory])
        vm.run(["cp", "-r", f"/var/lib/tinykdump/images/{kver}", directory])
        image = vm.shell(f"ls {directory}/*.img").text.strip()
        return Built(done.cpu, "tinykdump -b", image)

    return build


def tinykdump(name: str, settings: str = "") -> Peer:
    """tinykdump with a drop-in."""
    directory = f"/root/{'plain' if settings else 'encrypted'}"
    return Peer(
        name,
        _tinykdump(directory, settings),
        f"python3 /root/load {directory}",
        "tinykdump: .*saving the memory",
        "tinykdump: .*saved as",
        "tinykdump/*/*/vmcore*",
    )


# --- kdump-tools ------------------------------------------------------------------------

_KDUMP_TOOLS = f"""
USE_KDUMP=1
KDUMP_KERNEL=/var/lib/kdump/vmlinuz
KDUMP_INITRD=/var/lib/kdump/initrd.img
KDUMP_COREDIR=/var/crash
MAKEDUMP_ARGS="-F -l -d 31"
KDUMP_CMDLINE="{ROOT}"
KDUMP_CMDLINE_APPEND="reset_devices systemd.unit=kdump-tools-dump.service nr_cpus=1 irqpoll"
"""


def _build_kdump_tools(vm: VM, kver: str) -> Built:
    vm.put(_KDUMP_TOOLS.encode(), "/etc/default/kdump-tools")
    command = ["/etc/kernel/postinst.d/kdump-tools", kver]
    done = vm.run(command, timeout=BUILD_SECONDS)
    # As kdump-config symlinks does, which asks for the image's directory by its version.
    vm.shell(f"ln -sf /boot/vmlinuz-{kver} /var/lib/kdump/vmlinuz;"
             f"ln -sf initrd.img-{kver} /var/lib/kdump/initrd.img")  # fmt: skip
    return Built(done.cpu, f"{shlex.join(command)} (mkinitramfs, MODULES=dep)",
                 f"/var/lib/kdump/initrd.img-{kver}")  # fmt: skip


# Its crash kernel boots the root file system, where systemd-sysv would bring reboot.
_KDUMP_TOOLS_LOAD = f"""
echo {MOUNTED} >/etc/fstab
ln -sf /usr/bin/systemctl /usr/sbin/reboot
sync
kdump-config load
"""

KDUMP_TOOLS = Peer(
    "kdump-tools",
    _build_kdump_tools,
    _KDUMP_TOOLS_LOAD,
    "running makedumpfile -F",
    "saved vmcore in",
    "*/dump.*",
    "kdump-tools",
)


def build_mkinitramfs(vm: VM, kver: str) -> Built:
    """An image for the guest itself, with the drivers that it uses: kdump-tools' adds to that."""
    vm.shell("cp -r /etc/initramfs-tools /run/dep;"
             "sed -i s/^MODULES=.*/MODULES=dep/ /run/dep/initramfs.conf")  # fmt: skip
    command = ["mkinitramfs", "-d", "/run/dep", "-o", "/var/lib/dep.img", kver]
    done = vm.run(command, timeout=BUILD_SECONDS)
    return Built(done.cpu, shlex.join(command), "/var/lib/dep.img")


# --- kdump-utils ------------------------------------------------------------------------

# What kdump.sh calls. Debian's dracut leaves out grep, id and mktemp; without grep, kdump.sh finds
# nothing in its configuration, and looks for a root file system to save the dump to.
_PROGRAMS = " ".join(f"/usr/bin/{name}" for name in (
    "cat", "cp", "findmnt", "grep", "id", "ls", "mkdir", "mktemp", "mv", "rm", "tr",
))  # fmt: skip
_KDUMP_CONF = f"""
ext4 {LABEL}
path /
core_collector makedumpfile -l -d 31
extra_modules {DRIVERS}
extra_bins {_PROGRAMS}
"""
_KDUMP_IMAGE = "/var/lib/kdump/dracut.img"
# Its messages go to the journal, so that has to write to the console.
_KDUMP_LOAD = f"""
. /etc/sysconfig/kdump
kexec -p $KEXEC_ARGS /boot/vmlinuz-$(uname -r) --initrd={_KDUMP_IMAGE} \
--command-line="console=ttyS0 no_timer_check systemd.journald.forward_to_kmsg=1 \
printk.devkmsg=on $KDUMP_COMMANDLINE_APPEND"
"""


def kdump_utils(source: Path) -> Peer:
    """Fedora's, with sources in a directory."""

    def build(vm: VM, kver: str) -> Built:
        vm.put(_installed(source), "/run/kdump-utils.tar")
        vm.run(["tar", "--no-overwrite-dir", "-xf", "/run/kdump-utils.tar", "-C", "/"])
        vm.put(_KDUMP_CONF.encode(), "/etc/kdump.conf")
        # dracut asks udev about the stick.
        vm.shell("/usr/lib/systemd/systemd-udevd --daemon; udevadm trigger; udevadm settle")
        command = ["mkdumprd", "-f", _KDUMP_IMAGE, kver]
        done = vm.run(command, timeout=BUILD_SECONDS, env={"IN_KDUMP": "1"})
        return Built(done.cpu, shlex.join(command), _KDUMP_IMAGE)

    return Peer(
        "dracut (kdump-utils)",
        build,
        _KDUMP_LOAD,
        r"saving vmcore$",
        "saving vmcore complete",
        "*/vmcore",
        "dracut-core",
    )


def _installed(source: Path) -> bytes:
    """What `make install` of kdump-utils installs; it writes into its sources."""
    with tempfile.TemporaryDirectory() as directory:
        copy, target = Path(directory) / "source", Path(directory) / "target"
        shutil.copytree(source, copy)
        subprocess.run(["make", "-C", str(copy), "install", f"DESTDIR={target}"], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        # /usr is merged in the guest.
        words = ["tar", "-C", str(target), "--owner=0", "--group=0", "-c", "."]
        return subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout


# --- the run ----------------------------------------------------------------------------


def peers(source: Path | None) -> tuple[Peer, ...]:
    """All that is measured; kdump-utils only if its sources are given."""
    return (
        tinykdump("tinykdump"),
        tinykdump("tinykdump, encrypt = no", "[dump]\nencrypt = no\n"),
        KDUMP_TOOLS,
        *([kdump_utils(source)] if source else []),
    )


def measure(everybody: Sequence[Peer], workdir: Path, runs: int = RUNS) -> Iterator[Measured]:
    """Build an image of each, then crash with each in turn."""
    root = rootfs.build(RECIPE)
    image = stick.make(workdir / "stick.img", filesystem="ext4", size_mib=1024)
    machine = root.machine(f"crashkernel={RESERVED_MIB}M", memory_mib=MEMORY_MIB, reboots=False,
                           sticks=(Stick("stick", image.path),))  # fmt: skip
    asleep = workdir / "asleep"
    with running(machine, workdir / "prepare") as vm:
        vm.shell(f"modprobe -a {DRIVERS}; until [ -e /dev/sda ]; do sleep 0.2; done")
        service.install(vm)
        versions = {}
        for peer in everybody:
            yield from _built(vm, peer.name, peer.build(vm, root.kver))
            versions[peer.name] = _versions(vm, peer)
        yield from _built(vm, "mkinitramfs, MODULES=dep", build_mkinitramfs(vm, root.kver))
        vm.run(["sync"])
        snapshot.save(vm, asleep)
    crashes: dict[str, list[Crash]] = {peer.name: [] for peer in everybody}
    for number in range(runs):
        for peer in everybody:
            place = workdir / f"{number}-{peer.name}"
            try:
                crashes[peer.name].append(crash(machine, asleep, peer, place))
                print(f"  {peer.name}, run {number + 1}: {crashes[peer.name][-1]}", flush=True)
            except MachineLost as error:
                print(f"  {peer.name}, run {number + 1}, saved nothing: {error}", flush=True)
            shutil.rmtree(place)
            if crashes[peer.name]:
                known = versions[peer.name] | {"kernel": root.kver}
                yield from figures(peer, crashes[peer.name], known)


def _versions(vm: VM, peer: Peer) -> dict[str, str]:
    names = ["makedumpfile", *filter(None, [peer.package])]
    said = vm.run(["dpkg-query", "--show", *names]).text
    return dict(line.split("\t") for line in said.splitlines())


def _built(vm: VM, name: str, built: Built) -> Iterator[Measured]:
    """The figures of the build of an image in the guest."""
    packed = int(vm.run(["stat", "-L", "-c", "%s", built.image]).text)
    unpacked = unpacked_size(vm, built.image)
    note = "in an emulated guest, the first build"
    yield Measured("image, build in the guest", name, "s of CPU", (built.seconds,),
                   built.command, note=note)  # fmt: skip
    yield Measured("image, packed", name, "MB", (packed / MB,), built.command)
    yield Measured("image, unpacked", name, "MB", (unpacked / MB,), built.command)


def unpacked_size(vm: VM, image: str) -> int:
    """Bytes of all archives of an image: one that is not compressed can come first."""
    script = f"d=$(mktemp -d); unmkinitramfs {image} $d; du -sb --apparent-size $d; rm -r $d"
    return int(vm.shell(script, timeout=BUILD_SECONDS).text.split()[0])


def crash(machine: Machine, asleep: Path, peer: Peer, place: Path) -> Crash:
    """Load a peer's image in the resumed guest, and crash.

    Raises MachineLost if no dump is on the stick.
    """
    with snapshot.resumed(machine, asleep, place) as vm:
        vm.shell(peer.load)
        service.crash(vm, service.mark())
        vm.wait_for_console("Kernel panic", CRASH_SECONDS)
        panic = time.monotonic()
        first = vm.wait_for_console(peer.dumping, CRASH_SECONDS)
        dumping = time.monotonic() - panic
        second = vm.wait_for_console(peer.saved, CRASH_SECONDS)
        saved = time.monotonic() - panic
        vm.wait_for_reboot(CRASH_SECONDS)
        console = vm.console
        written = vm.machine.stick("stick").image
    files = place / "files"
    stick.extract(stick.Image(written, "ext4"), files)
    size = sum(path.stat().st_size for path in files.glob(peer.dumps))
    if not size:
        raise MachineLost(f"{peer.name} left no dump on the stick", console[-4000:])
    return Crash(dumping, saved, clock(first), clock(second), size)


def clock(line: str) -> float:
    """The kernel's time of a line of the console, in seconds. Pure."""
    found = re.match(r"\[ *([0-9]+\.[0-9]+)\]", line)
    if not found:
        raise ValueError(f"a line of the console without a time: {line}")
    return float(found[1])


def figures(peer: Peer, crashes: Sequence[Crash], versions: dict[str, str]) -> Iterator[Measured]:
    """The figures of all crashes of one peer. Pure."""
    command = f"{peer.load.strip().splitlines()[-1]}; echo c >/proc/sysrq-trigger"
    note = f"{MEMORY_MIB} MiB, {RESERVED_MIB} MiB reserved, ext4 stick on xHCI"
    for group, unit, values in (
        ("crash, panic to makedumpfile", "s", [each.dumping for each in crashes]),
        ("crash, panic to saved", "s", [each.saved for each in crashes]),
        (
            "crash, clock of the crash kernel at makedumpfile",
            "s",
            [each.dumping_clock for each in crashes],
        ),
        ("crash, clock of the crash kernel at saved", "s", [each.saved_clock for each in crashes]),
        ("crash, memory on the stick", "MB", [each.size / MB for each in crashes]),
    ):
        yield Measured(group, peer.name, unit, tuple(values), command, versions=versions,
                       note=note)  # fmt: skip
