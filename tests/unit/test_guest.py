# SPDX-License-Identifier: GPL-2.0-or-later
"""What a rehearsal's guest gets, and what its console tells."""

from pathlib import Path

import pytest

from tinykdump import guest
from tinykdump.architecture import AARCH64, X86_64
from tinykdump.guest import Guest, Outcome
from tinykdump.memory import MIB

ID = "0123456789abcdef"
GUEST = Guest(Path("/k"), Path("/i"), Path("/s"), Path("/c"), "qemu-xhci", 96 * MIB)

# As QEMU's serial port has it: the system kernel, then the crash kernel.
SYSTEM = f"""\
[    0.000000] Linux version 6.12.1 (me@here)\r
[    2.100000] tinykdump: rehearsal: loading the crash kernel\r
[    3.300000] tinykdump: test {ID}\r
[    3.400000] sysrq: Trigger a crash\r
[    3.500000] Kernel panic - not syncing: sysrq triggered crash\r
"""
CRASH = """\
[    0.000000] Linux version 6.12.1 (me@here)\r
[    5.000000] tinykdump: [5.00 s] crash kernel 6.12.1 is up, image of tinykdump 1\r
[    6.000000] tinykdump: [6.00 s] waiting for the stick LABEL=TINYKDUMP\r
"""
SAVED = """\
[    7.000000] tinykdump: [7.00 s] saved as tinykdump/0123456789ab/20260101T000000Z\r
[    8.000000] tinykdump: [8.00 s] dump saved; final action: reboot\r
"""


def failed(text: str) -> str:
    return f"[    9.000000] tinykdump: [9.00 s] failed: {text}\r\n"


@pytest.mark.parametrize(
    ("modules", "device"),
    [
        (("xhci_hcd", "xhci_pci"), "qemu-xhci"),
        (("ehci_hcd", "ehci_pci"), "usb-ehci"),
        (("ehci_pci", "xhci_pci"), "qemu-xhci"),
        (("ohci_pci",), "pci-ohci"),
        (("uhci_hcd",), "piix3-usb-uhci"),
        (("usb_storage",), "qemu-xhci"),
        ((), "qemu-xhci"),
    ],
)
def test_the_controller_fits_the_image(modules: tuple[str, ...], device: str) -> None:
    assert guest.controller(modules) == device


@pytest.mark.parametrize(("reserved", "memory"), [(96, 512), (128, 512), (300, 684)])
def test_the_system_kernel_has_memory_beside_the_reservation(reserved: int, memory: int) -> None:
    made = Guest(Path("/k"), Path("/i"), Path("/s"), Path("/c"), "qemu-xhci", reserved * MIB)
    assert made.memory == memory * MIB


def test_the_command() -> None:
    words = guest.command("qemu", X86_64.emulator, GUEST, kvm=True)
    assert words[0] == "qemu"
    assert words[words.index("-machine") + 1] == "q35,accel=kvm"
    assert words[words.index("-m") + 1] == "512"
    assert "crashkernel=98304K" in words[words.index("-append") + 1].split()
    assert "accel=tcg" in " ".join(guest.command("qemu", X86_64.emulator, GUEST, kvm=False))


def test_the_command_of_another_architecture() -> None:
    """A processor that is slow to emulate is not taken; with KVM, it is the machine's."""
    slow, fast = (guest.command("q", AARCH64.emulator, GUEST, kvm=kvm) for kvm in (False, True))
    assert slow[slow.index("-machine") + 1] == "virt,accel=tcg"
    assert [words[words.index("-cpu") + 1] for words in (slow, fast)] == ["cortex-a72", "max"]
    assert "console=ttyAMA0" in slow[slow.index("-append") + 1].split()


def test_the_crash_kernel_gets_the_machines_command_line() -> None:
    """The guest's console is added, last: it is /dev/console."""
    line = guest.crash_cmdline(X86_64.emulator, "console=tty0 loglevel=3 irqpoll")
    assert line.startswith("console=tty0 loglevel=3 irqpoll ")
    words = line.split()
    assert [word for word in words if word.startswith("console=")][-1] == "console=ttyS0,115200"
    assert words[-1] == "loglevel=7"


@pytest.mark.parametrize(
    ("console", "hangs", "saved", "says"),
    [
        (SYSTEM + CRASH + SAVED, False, True, "saved as tinykdump/0123456789ab/20260101T000000Z"),
        ("", False, False, "the system kernel ends in the guest before it loads the image"),
        (SYSTEM[:120], True, False,
         "the system kernel hangs in the guest before it loads the image"),
        (SYSTEM[:120] + "[ 2.2] tinykdump: rehearsal failed: kexec: no memory\r\n", False, False,
         "kexec: no memory (with 96 MiB reserved)"),
        (SYSTEM[:120] + "[ 2.2] tinykdump: rehearsal failed: kexec: kexec_file_load failed: Cannot "
         "assign requested address\r\n", False, False, "the crash kernel and its image do not fit "
         "into the reserved memory (with 96 MiB reserved)"),
        (SYSTEM, False, False, "the crash kernel does not start (with 96 MiB reserved)"),
        (SYSTEM, True, False, "the crash kernel does not start (with 96 MiB reserved)"),
        (SYSTEM + CRASH + failed("no stick"), False, False, "no stick"),
        (SYSTEM + CRASH, True, False,
         "the crash kernel hangs after: waiting for the stick LABEL=TINYKDUMP"),
        (SYSTEM + CRASH[:47], True, False, "the crash kernel hangs after: its start"),
        (SYSTEM + CRASH[:47] + "[    1.000000] System is deadlocked on memory\r\n", False, False,
         "the crash kernel ended before its first stage; it ran out of memory, with 96 MiB "
         "reserved"),
        (SYSTEM + CRASH + failed("no \x1b[2J"), False, False, "no \\x1b[2J"),
    ],
)  # fmt: skip
def test_the_outcome(console: str, says: str, *, hangs: bool, saved: bool) -> None:
    assert guest.outcome(console, 96 * MIB, hangs=hangs) == Outcome(saved, says)


def test_the_course() -> None:
    console = SYSTEM + CRASH
    assert not guest.has_started(console[:60])
    assert guest.has_started(console)
    assert not guest.has_ended(console)
    assert guest.has_ended(console + SAVED)
    assert guest.has_ended(console + "[   11.694886] Rebooting in 10 seconds..\r\n")
    assert guest.lines(console)[:2] == ["rehearsal: loading the crash kernel", f"test {ID}"]
    assert guest.lines("tinykdump: \x1b[2J\r\n") == ["\\x1b[2J"]
