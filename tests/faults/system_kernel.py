# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows about the system kernel: the ways in which it dies.

The kernel of kernel/ has LKDTM, a module that crashes on request
(Documentation/fault-injection/provoke-crashes.rst).
"""

from collections.abc import Callable

from tests.faults.bench import Bench, Crash
from tests.faults.scenario import Scenario, Shape
from tests.vmtest.vm import VM

LKDTM = "/sys/kernel/debug/provoke-crash/DIRECT"
CPUS = 4
FOUR = Shape(cpus=CPUS)


def by(command: str, *sysctls: str, cpu: int | None = None) -> Crash:
    """Crash with a shell command, from a process with the mark's name."""

    def crash(vm: VM, mark: str) -> None:
        prepare(vm, mark, *sysctls)
        pin = ["taskset", "-c", str(cpu)] if cpu is not None else []
        vm.start([*pin, "/bin/sh", "-c", f"echo {mark} >/proc/$$/comm; {command}"])

    return crash


def prepare(vm: VM, mark: str, *sysctls: str) -> None:
    """Write the mark to the kernel's log: not every panic names the process."""
    # LKDTM is built into one of the kernels, and not every row needs it.
    lines = [f"echo {mark} >/dev/kmsg", "modprobe -q lkdtm || true"]
    for each in ("kernel/sysrq=1", *sysctls):
        name, _, value = each.partition("=")
        lines.append(f"echo {value} >/proc/sys/{name}")
    vm.shell("\n".join(lines))


def crashing(how: Crash, expected: str) -> Callable[[Bench], str]:
    """A check: the machine dies in that way, and its dump is saved."""

    def check(bench: Bench) -> str:
        bench.crash(how)
        return bench.saved(expected)

    return check


def nmi(vm: VM, mark: str) -> None:
    prepare(vm, mark, "kernel/unknown_nmi_panic=1")
    vm.nmi()


def lockup(vm: VM, mark: str) -> None:
    """The only processor turns its interrupts off and loops; somebody presses the NMI button."""
    prepare(vm, mark, "kernel/unknown_nmi_panic=1")
    vm.start(["/bin/sh", "-c", f"sleep 1; echo {mark} >/proc/$$/comm; echo HARDLOCKUP >{LKDTM}"])
    vm.wait_for_console("lkdtm: Performing direct entry HARDLOCKUP", 60)
    vm.nmi()


def interrupt(vm: VM, mark: str) -> None:
    """Alt, Print and C of a PS/2 keyboard: the kernel handles them in its interrupt."""
    prepare(vm, mark)
    names = ("alt", "sysrq", "c")
    vm.qmp("send-key", keys=[{"type": "qcode", "data": name} for name in names])


def after_arming(vm: VM, mark: str) -> None:
    prepare(vm, mark)
    vm.run(["tinykdump", "unload"])
    vm.start(["/bin/sh", "-c", "tinykdump -l && echo c >/proc/sysrq-trigger"])


EATER = "exec python3 -c 'kept = []\nwhile True: kept.append(bytearray(1 << 24))'"
TWO = f"(taskset -c 1 sh -c 'echo PANIC >{LKDTM}') & exec taskset -c 2 sh -c 'echo PANIC >{LKDTM}'"
SAVED = "a complete dump"

ROWS = (
    Scenario("system-kernel", "oops", "a NULL pointer, with kernel.panic_on_oops", SAVED,
             crashing(by(f"echo EXCEPTION >{LKDTM}", "kernel/panic_on_oops=1"), "Oops: "),
             kernel="patched"),
    Scenario("system-kernel", "stack-overflow", "the kernel's stack overflows into other "
             "memory (without guard pages)", SAVED,
             crashing(by(f"echo EXHAUST_STACK >{LKDTM}", "kernel/panic_on_oops=1"),
                      "Oops: "), kernel="patched"),
    Scenario("system-kernel", "hung-task", "a task hangs, with kernel.hung_task_panic", SAVED,
             crashing(by(f"echo HUNG_TASK >{LKDTM}", "kernel/hung_task_panic=1",
                         "kernel/hung_task_timeout_secs=5"), "hung_task: blocked tasks"),
             kernel="patched"),
    Scenario("system-kernel", "nmi", "the NMI button, with kernel.unknown_nmi_panic", SAVED,
             crashing(nmi, "NMI: Not continuing")),
    Scenario("system-kernel", "lockup-and-nmi", "the only processor loops with its interrupts off; "
             "then the NMI button", SAVED, crashing(lockup, "NMI: Not continuing"),
             kernel="patched"),
    Scenario("system-kernel", "interrupt", "a panic in a hard interrupt (sysrq by the keyboard)",
             SAVED, crashing(interrupt, "<IRQ>"), kernel="stock"),
    Scenario("system-kernel", "out-of-memory", "no memory is left, with vm.panic_on_oom", SAVED,
             crashing(by(EATER, "vm/panic_on_oom=1"), "Out of memory: ")),
    Scenario("system-kernel", "right-after-arming", "a panic as soon as `tinykdump -l` ends", SAVED,
             crashing(after_arming, "sysrq triggered crash")),
    Scenario("system-kernel", "double-panic", "two of four processors panic at the same time",
             SAVED, crashing(by(TWO), "Kernel panic - not syncing: dumptest"), shape=FOUR,
             kernel="patched"),
    *(
        Scenario("system-kernel", f"cpu-{cpu}", f"a panic on processor {cpu} of {CPUS}", SAVED,
                 crashing(by("echo c >/proc/sysrq-trigger", cpu=cpu), "sysrq triggered crash"),
                 shape=FOUR)
        for cpu in range(CPUS)
    ),
    Scenario("system-kernel", "hard-lockup", "the NMI watchdog finds a hard lockup", SAVED,
             reason="it needs a performance counter, which QEMU does not emulate; lockup-and-nmi "
             "crashes from the same state"),
    Scenario("system-kernel", "soft-lockup", "the watchdog finds a soft lockup", SAVED,
             reason="Debian's kernel has the watchdog but no LKDTM to loop with, the one of "
             "kernel/ LKDTM but no watchdog"),
)  # fmt: skip
