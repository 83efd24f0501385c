# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that crashes, obeys orders in its crash kernel as well, and shows what pstore has."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.vmtest import orders
from tests.vmtest.machine import Machine
from tests.vmtest.qemu import started

# Under emulation on a busy host, the check of the timer fails at times.
COMMON = ("console=ttyS0", "no_timer_check", "kunit.enable=0")

# A hardware watchdog, and how it is started in the guest: nobody feeds it.
WATCHDOG = ("-device", "i6300esb", "-action", "watchdog=reset")
# A kernel that loops with interrupts off, and one that goes on after it has killed a process.
HANG = "echo HARDLOCKUP >/sys/kernel/debug/provoke-crash/DIRECT"
OOPS = "(echo BUG >/sys/kernel/debug/provoke-crash/DIRECT); true"
# More than any backend has room for. The worker gets a moment: a dump makes no room.
FLOOD = (
    "i=0; while [ $i -lt 1500 ]; do i=$((i + 1)); "
    'echo "<14>line $i $RANDOM$RANDOM$RANDOM$RANDOM$RANDOM$RANDOM"; '
    "done >/dev/kmsg; sleep 3"
)
WATCHDOG_ON = "[ -c /dev/watchdog0 ] && exec 9>/dev/watchdog0 && echo x >&9"


class Guest(orders.Guest):
    def load_crash_kernel(self, command_line: str) -> None:
        options = " ".join((*COMMON, command_line))
        self.run(f"kexec -p -s /crash/kernel --initrd=/crash/initrd --command-line='{options}'")

    def crash(self) -> None:
        self.post("echo c >/proc/sysrq-trigger")
        self.boot("crash")

    def records(self) -> dict[str, str]:
        """What pstore has, by name."""
        self.run("grep -q ' /pstore ' /proc/mounts || mount -t pstore pstore /pstore")
        names = self.run("ls /pstore").split()
        return {name: self.run(f"cat /pstore/{name}") for name in names}


def running(machine: Machine, directory: Path) -> AbstractContextManager[Guest]:
    """Start it; what QEMU keeps for it, the stores of its firmware, is in the directory."""
    return started(Guest, machine, directory)


def console_records(records: dict[str, str]) -> list[str]:
    """The records of a crash kernel's console, oldest first."""
    names: Sequence[str] = [name for name in records if name.startswith("kexec-console-")]
    ordered = sorted(names, key=lambda name: int(name.rpartition("-")[2]))
    return [records[name] for name in ordered]
