# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that crashes, obeys orders in its crash kernel as well, and shows what pstore has."""

import re
from collections import defaultdict
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
    'echo "<13>line $i $RANDOM$RANDOM$RANDOM$RANDOM$RANDOM$RANDOM"; '
    "done >/dev/kmsg; sleep 3"
)
WATCHDOG_ON = "[ -c /dev/watchdog0 ] && exec 9>/dev/watchdog0 && echo x >&9"
# Seconds of uptime of the crash kernel at which it hangs; the small init is not there earlier.
HANGS = (2, 10, 40, 120)


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
    """The records of crash kernels' consoles, oldest first."""
    names = [name for name in records if name.startswith("kexec-console-")]
    ordered = sorted(names, key=lambda name: int(name.rpartition("-")[2]))
    return [records[name] for name in ordered]


def logs(records: dict[str, str]) -> list[str]:
    """The logs that the parts in them make up, each by its ID, the oldest first."""
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for text in console_records(records):
        heading, _, body = text.partition("\n")
        match = re.fullmatch(r"kexec-console#([0-9a-f]{8}) Part(\d+)", heading)
        assert match, heading
        parts = found[match[1]]
        parts[int(match[2])] = max(body, parts.get(int(match[2]), ""), key=len)
    return ["".join(parts[number] for number in sorted(parts)) for parts in found.values()]


def hang_at(machine: Guest, seconds: int, token: str) -> None:
    """Log a line in each second, until the crash kernel is that old; then hang, as hard as can be.

    The watchdog is fed until then. Each line says how old the kernel is.
    """
    machine.run(WATCHDOG_ON)
    age = "$(sed 's/[. ].*//' /proc/uptime)"
    machine.post(
        f"exec 9>/dev/watchdog0; while echo x >&9; echo '<13>{token} is '{age} >/dev/kmsg; "
        f"[ {age} -lt {seconds} ]; do sleep 1; done; {HANG}"
    )
    machine.boot("normal")


def ages(token: str, text: str) -> list[int]:
    """What hang_at() has logged, as far as it is there."""
    return [int(age) for age in re.findall(rf"{token} is (\d+)$", text, re.MULTILINE)]


def assert_two_thirds(token: str, text: str, console: str) -> str:
    """What was logged in the first two thirds of a crash kernel's time is there; the figures.

    An incomplete record waits for half as long as the log has been stored for, and a second
    until somebody looks, which takes a while on a busy machine.
    """
    end = ages(token, console)[-1]
    times = [float(time) for time in re.findall(r"^<\d+>\[ *([\d.]+)\]", text, re.MULTILINE)]
    figures = f"hung at {end} s, stored until {times[-1]:.0f} s"
    assert times[-1] >= end * 2 / 3 - 4, figures
    return figures
