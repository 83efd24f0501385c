# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest of a rehearsal: its command lines, and what its console tells. No I/O here."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tinykdump.architecture import Emulator
from tinykdump.crashlog import CrashLog
from tinykdump.memory import MIB
from tinykdump.text import escaped

# Module of the image -> the USB host controller of QEMU that it drives, the usual one first.
_CONTROLLERS = {
    "xhci_pci": "qemu-xhci",
    "ehci_pci": "usb-ehci",
    "ohci_pci": "pci-ohci",
    "uhci_hcd": "piix3-usb-uhci",
}

# The least memory of a guest, and what its system kernel needs beside the reservation, in bytes.
_USUAL, _SYSTEM = 512 * MIB, 384 * MIB

# The console's log level at which the stages of src/crash are shown.
_SHOWN = "loglevel=7"

_STARTED = "] Linux version "
_LINE = re.compile(r"tinykdump: (.*)")
_FAILED = re.compile(r"tinykdump: rehearsal failed: (.*)")
_CRASHED = re.compile(r"tinykdump: test [0-9a-f]{16}")
# The crash kernel's last line, also after a panic: panic=10 is on its command line.
_END = re.compile(r"tinykdump: \[.*\] dump \w+; final action: |Rebooting in \d+ seconds")
# EADDRNOTAVAIL of kexec_file_load(2), if kexec_locate_mem_hole() in the kernel finds no place.
_NO_PLACE = "Cannot assign requested address"
_NO_MEMORY = re.compile(
    r"Out of memory|deadlocked on memory|Initramfs unpacking failed|page allocation failure"
    r"|Cannot allocate memory"
)


@dataclass(frozen=True)
class Guest:
    """A virtual machine and its files."""

    kernel: Path
    initrd: Path
    stick: Path  # a raw disk
    console: Path  # what the serial port says is written there
    controller: str  # the USB host controller, as QEMU names it
    reserved: int  # bytes for the crash kernel

    @property
    def memory(self) -> int:
        """Its memory in bytes."""
        return max(_USUAL, self.reserved + _SYSTEM)


def controller(modules: Collection[str]) -> str:
    """A USB host controller for which an image with these modules has the driver.

    Without any, its kernel has them built in.
    """
    drivers = (device for module, device in _CONTROLLERS.items() if module in modules)
    return next(drivers, next(iter(_CONTROLLERS.values())))


def command(program: str, emulator: Emulator, guest: Guest, *, kvm: bool) -> tuple[str, ...]:
    """The command that runs the guest with ``program``, a QEMU; it ends when the guest reboots."""
    return (
        program,
        "-nodefaults", "-no-user-config", "-no-reboot",
        "-display", "none",
        "-machine", f"{emulator.board},accel={'kvm' if kvm else 'tcg'}",
        "-cpu", "max" if kvm else emulator.cpu,
        "-m", str(-(-guest.memory // MIB)),
        "-kernel", str(guest.kernel),
        "-initrd", str(guest.initrd),
        "-append", system_cmdline(emulator, guest.reserved),
        "-serial", f"file:{guest.console}",
        "-device", f"{guest.controller},id=usb",
        # The file is read after QEMU's end; nobody needs it on the disk before. If the disk is
        # full, QEMU would stop the guest, which would then look as if it hung.
        "-drive", f"if=none,id=stick,format=raw,cache=unsafe,werror=report,file={guest.stick}",
        "-device", "usb-storage,bus=usb.0,drive=stick",
    )  # fmt: skip


def system_cmdline(emulator: Emulator, reserved: int) -> str:
    """The command line of the system kernel; ``reserved`` is in bytes."""
    own = (_SHOWN, "panic=-1", "printk.devkmsg=on", f"crashkernel={reserved >> 10}K")
    return " ".join((*emulator.parameters, *own))


def crash_cmdline(emulator: Emulator, cmdline: str) -> str:
    """The command line of the crash kernel: that of the machine, with the guest's console."""
    return " ".join((cmdline, *emulator.parameters, _SHOWN))


def has_started(console: str) -> bool:
    """Whether the system kernel has come to its first process."""
    return bool(_LINE.search(console))


def has_ended(console: str) -> bool:
    """Whether nothing more happens in the guest, though it may not end: final_action = halt."""
    return bool(_END.search(console))


def lines(console: str) -> list[str]:
    """What tinykdump says on the console."""
    return [escaped(found.rstrip()) for found in _LINE.findall(console)]


@dataclass(frozen=True)
class Outcome:
    """What came of a rehearsal, by its console."""

    saved: bool
    says: str  # in one line


def outcome(console: str, reserved: int, *, hangs: bool = False) -> Outcome:
    """Read the console; ``hangs``: it said nothing more for long, or did not come to an end."""
    text = escaped(console.replace("\r", ""))
    with_memory = f" (with {reserved // MIB} MiB reserved)"
    if failed := _FAILED.search(text):
        says = failed[1].strip()
        if _NO_PLACE in says:
            says = "the crash kernel and its image do not fit into the reserved memory"
        return Outcome(False, says + with_memory)
    crashed = _CRASHED.search(text)
    if not crashed:
        stops = "hangs" if hangs else "ends"
        return Outcome(False, f"the system kernel {stops} in the guest before it loads the image")
    _, started, after = text[crashed.end() :].partition(_STARTED)
    log = CrashLog(after, is_whole=True)
    if log.saved:
        return Outcome(True, log.verdict)
    if not started:
        return Outcome(False, "the crash kernel does not start" + with_memory)
    says = log.verdict
    if hangs:
        says = f"the crash kernel hangs after: {log.stage or 'its start'}"
    if _NO_MEMORY.search(after):
        says += f"; it ran out of memory, with {reserved // MIB} MiB reserved"
    return Outcome(False, says.removeprefix("failed: "))
