# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine as a value, and its QEMU command line. Pure.

Devices are dictionaries for QMP, because QEMU's command line takes the same JSON. So a stick that
is plugged in from the start and one that is plugged in later are the same device, as a snapshot
of the machine requires.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

AGENT_PORT = "org.tinykdump.agent"

Device = dict[str, object]


@dataclass(frozen=True)
class Disk:
    """A virtio disk. The guest writes to an overlay in the work directory, never to the image."""

    id: str
    image: Path
    format: Literal["raw", "qcow2"] = "raw"

    def overlay(self, workdir: Path) -> Path:
        return workdir / f"{self.id}.qcow2"


@dataclass(frozen=True)
class Controller:
    """A USB host controller; sticks name it by its id."""

    id: str
    model: str
    properties: tuple[tuple[str, object], ...] = ()


XHCI = Controller("xhci", "qemu-xhci", (("p2", 8), ("p3", 8)))
EHCI = Controller("ehci", "usb-ehci")


@dataclass(frozen=True)
class Stick:
    """A USB stick. The guest writes to the image itself, so a test can read it afterwards."""

    id: str
    image: Path
    format: Literal["raw", "qcow2"] = "raw"
    # The id of a controller.
    bus: str = "xhci"
    driver: Literal["usb-storage", "usb-uas"] = "usb-storage"
    plugged: bool = True
    readonly: bool = False
    # The port of the controller, such as "5.1" for the first port of a hub at port 5; empty: its
    # own one of the root ports.
    port: str = ""
    # What QEMU puts on top of the image's file: blkdebug or blklogwrites, with its options.
    filter: Device = field(default_factory=dict)
    # Further properties of the disk, such as its block sizes.
    properties: Device = field(default_factory=dict)


@dataclass(frozen=True)
class Firmware:
    """UEFI. The machine gets its own copy of the variables in its work directory."""

    code: Path
    variables: Path
    # Whether only the firmware can write to the variables, as OVMF with Secure Boot requires.
    secure: bool = False

    def copy(self, workdir: Path) -> Path:
        return workdir / "firmware-variables.fd"


_PLACE = Path("/usr/share/OVMF")
OVMF = Firmware(_PLACE / "OVMF_CODE_4M.fd", _PLACE / "OVMF_VARS_4M.fd")


@dataclass(frozen=True)
class Platform:
    """What the machines of an architecture differ in."""

    program: str  # QEMU
    board: str
    old_board: str  # with fewer devices, if there is one
    cpu: str  # where it is emulated
    console: str  # the serial port, as the kernel names it


# With ERMS, Linux and glibc copy memory with one instruction, which QEMU emulates a byte at a time.
X86_64 = Platform("qemu-system-x86_64", "q35", "pc", "max,erms=off", "ttyS0")
# "max" signs pointers, which takes most of the time of an emulated kernel.
AARCH64 = Platform("qemu-system-aarch64", "virt", "virt", "cortex-a72", "ttyAMA0")
PLATFORMS = {"x86_64": X86_64, "aarch64": AARCH64}  # by what uname -m says

# A display for up to 4096 x 4096 pixels.
DISPLAY = "VGA,vgamem_mb=64"


def screen_mode(width: int, height: int) -> str:
    """A kernel parameter: the mode that the EFI stub sets, which OVMF has to know.

    Documentation/fb/efifb.rst; it holds for any driver of the firmware's screen.
    """
    return f"video=efifb:{width}x{height}"


@dataclass(frozen=True)
class Machine:
    kernel: Path
    initrd: Path | None = None
    # The kernel command line, one parameter an element.
    append: tuple[str, ...] = ()
    memory_mib: int = 1024
    cpus: int = 1
    # KVM only where accel.best() says so.
    accel: Literal["tcg", "kvm"] = "tcg"
    # Whether the guest's clock counts instructions: then its times are the same on a busy host.
    counts: bool = False
    platform: Platform = X86_64
    # Value of -cpu; empty: that of the platform, or the host's.
    cpu: str = ""
    # The machine type; empty: that of the platform.
    model: str = ""
    disks: tuple[Disk, ...] = ()
    controllers: tuple[Controller, ...] = (XHCI,)
    sticks: tuple[Stick, ...] = ()
    # Values of -device, for instance "i6300esb" or "pvpanic".
    devices: tuple[str, ...] = ()
    # Any other arguments for QEMU.
    arguments: tuple[str, ...] = ()
    firmware: Firmware | None = None
    # Size of the ACPI ERST storage for pstore. 0: the machine has none.
    erst_kib: int = 0
    # Whether a reboot of the guest restarts the machine; if not, QEMU ends.
    reboots: bool = True
    # What answers in the guest: the agent on its virtio port (vm.py), or the small init on the
    # second serial port (orders.py).
    hand: Literal["agent", "init"] = "agent"
    # Seconds of CPU time after which QEMU is killed.
    lifetime: int = 3600

    def __post_init__(self) -> None:
        everything: tuple[Disk | Controller | Stick, ...]
        everything = (*self.disks, *self.controllers, *self.sticks)
        ids = [each.id for each in everything]
        twice = sorted({each for each in ids if ids.count(each) > 1})
        if twice:
            raise ValueError(f"ids are used twice: {', '.join(twice)}")
        buses = {controller.id for controller in self.controllers}
        for stick in self.sticks:
            if stick.bus not in buses:
                raise ValueError(f"stick {stick.id!r} is on {stick.bus!r}, which does not exist")

    def stick(self, stick_id: str) -> Stick:
        for stick in self.sticks:
            if stick.id == stick_id:
                return stick
        known = ", ".join(stick.id for stick in self.sticks) or "none"
        raise ValueError(f"the machine has no stick {stick_id!r} (it has: {known})")

    def with_stick(self, changed: Stick) -> "Machine":
        """The same machine with the stick of that id changed, or added."""
        if changed.id not in {stick.id for stick in self.sticks}:
            return replace(self, sticks=(*self.sticks, changed))
        sticks = tuple(changed if stick.id == changed.id else stick for stick in self.sticks)
        return replace(self, sticks=sticks)

    def with_append(self, *parameters: str) -> "Machine":
        return replace(self, append=(*self.append, *parameters))


def blockdev(node: str, image: Path, image_format: str, *, readonly: bool = False) -> Device:
    return {
        "driver": image_format,
        "node-name": node,
        "read-only": readonly,
        "file": {"driver": "file", "filename": str(image)},
    }


# What a filter calls the node below it.
_BELOW = {"blkdebug": "image", "blklogwrites": "file"}


def stick_blockdev(stick: Stick) -> Device:
    node = blockdev(f"{stick.id}-image", stick.image, stick.format, readonly=stick.readonly)
    if stick.filter:
        node["file"] = stick.filter | {_BELOW[str(stick.filter["driver"])]: node["file"]}
    return node


def stick_devices(machine: Machine, stick: Stick) -> list[Device]:
    """The devices to plug in, in order. Unplugging the first one removes the others, too."""
    # QEMU would use the first free port. The port, and so the device's name in a snapshot, would
    # depend on what was plugged in before.
    port = 1 + [each.id for each in machine.sticks if each.bus == stick.bus].index(stick.id)
    usb: Device = {
        "driver": stick.driver,
        "id": stick.id,
        "bus": f"{stick.bus}.0",
        "port": stick.port or str(port),
    }
    # The serial number is a property of the disk, which is part of usb-storage.
    drive: Device = {"drive": f"{stick.id}-image", "removable": True, "serial": stick.id}
    drive |= stick.properties
    if stick.driver == "usb-storage":
        return [usb | drive]
    return [usb, {"driver": "scsi-hd", "id": f"{stick.id}-lun", "bus": f"{stick.id}.0"} | drive]


def argv(machine: Machine, workdir: Path, *, qmp_fd: int, hand_fd: int) -> list[str]:
    """QEMU's command line; QEMU inherits the two file descriptors, which are sockets."""
    return [
        machine.platform.program,
        "-nodefaults",
        "-no-user-config",
        "-display", "none",
        *_hardware(machine),
        *_firmware(machine, workdir),
        *_boot(machine),
        *_channels(machine, workdir, qmp_fd, hand_fd),
        *_storage(machine, workdir),
        *_usb(machine),
        *_options("-device", machine.devices),
        *machine.arguments,
    ]  # fmt: skip


def _options(name: str, values: Iterable[str | Device]) -> list[str]:
    texts = (value if isinstance(value, str) else json.dumps(value) for value in values)
    return [argument for text in texts for argument in (name, text)]


def _hardware(machine: Machine) -> list[str]:
    threads = "single" if machine.counts else "multi"
    accel = {"tcg": f"tcg,thread={threads}", "kvm": "kvm"}[machine.accel]
    secure = machine.firmware is not None and machine.firmware.secure
    model = machine.model or machine.platform.board
    return [
        # The firmware writes to its variables in system management mode.
        "-machine", f"{model},smm=on" if secure else model,
        "-accel", accel,
        # 2 ns for each instruction. While all processors wait, the clock jumps ahead.
        *(["-icount", "shift=1,sleep=off"] if machine.counts else []),
        "-cpu", machine.cpu or {"tcg": machine.platform.cpu, "kvm": "host"}[machine.accel],
        "-smp", str(machine.cpus),
        "-m", f"{machine.memory_mib}M",
        # Without entropy, guests wait for it at boot, which takes long under TCG.
        "-device", "virtio-rng-pci",
        # QEMU only reports a panic: the tests check what the guest does then.
        "-action", f"panic=none,reboot={'reset' if machine.reboots else 'shutdown'}",
    ]  # fmt: skip


def _firmware(machine: Machine, workdir: Path) -> list[str]:
    arguments = []
    if machine.firmware:
        code, variables = machine.firmware.code, machine.firmware.copy(workdir)
        drives = (
            f"if=pflash,unit=0,format=raw,readonly=on,file={_escaped(code)}",
            f"if=pflash,unit=1,format=raw,file={_escaped(variables)}",
        )
        arguments += _options("-drive", drives)
        if machine.firmware.secure:
            arguments += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    if machine.erst_kib:
        backend = {
            "qom-type": "memory-backend-file",
            "id": "erst-memory",
            "mem-path": str(workdir / "erst.img"),
            "size": machine.erst_kib * 1024,
            "share": True,
        }
        arguments += _options("-object", [backend])
        arguments += _options("-device", [{"driver": "acpi-erst", "memdev": "erst-memory"}])
    return arguments


def _boot(machine: Machine) -> list[str]:
    initrd = ["-initrd", str(machine.initrd)] if machine.initrd else []
    return ["-kernel", str(machine.kernel), *initrd, "-append", " ".join(machine.append)]


def _channels(machine: Machine, workdir: Path, qmp_fd: int, hand_fd: int) -> list[str]:
    port = [
        "-device", "virtio-serial-pci,id=serial",
        "-device", f"virtserialport,bus=serial.0,chardev=hand,name={AGENT_PORT}",
    ]  # fmt: skip
    return [
        "-chardev", f"file,id=console,path={_escaped(workdir / 'console.log')}",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=qmp,fd={qmp_fd}",
        "-mon", "chardev=qmp,mode=control",
        "-chardev", f"socket,id=hand,fd={hand_fd}",
        *(port if machine.hand == "agent" else ["-serial", "chardev:hand"]),
    ]  # fmt: skip


def _storage(machine: Machine, workdir: Path) -> list[str]:
    arguments = []
    for disk in machine.disks:
        # Nothing has to survive a crash of the host, so ignore the guest's flushes.
        node = blockdev(f"{disk.id}-image", disk.overlay(workdir), "qcow2")
        node |= {"cache": {"no-flush": True}}
        device = {"driver": "virtio-blk-pci", "id": disk.id, "drive": node["node-name"]}
        arguments += [*_options("-blockdev", [node]), *_options("-device", [device])]
    return arguments


def _usb(machine: Machine) -> list[str]:
    controllers = (
        {"driver": each.model, "id": each.id} | dict(each.properties)
        for each in machine.controllers
    )
    arguments = _options("-device", controllers)
    for stick in machine.sticks:
        if stick.plugged:
            arguments += _options("-blockdev", [stick_blockdev(stick)])
            arguments += _options("-device", stick_devices(machine, stick))
    return arguments


def _escaped(path: Path) -> str:
    # A comma ends a value in QEMU's option lists.
    return str(path).replace(",", ",,")
