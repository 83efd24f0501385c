# SPDX-License-Identifier: GPL-2.0-or-later
"""ramoops over a warm reset: QEMU keeps the RAM, as machines that ramoops is for do."""

import contextlib
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.pstore.conftest import no_complaints
from tests.kernel.pstore.machine import (
    FLOOD,
    HANG,
    HANGS,
    OOPS,
    WATCHDOG,
    WATCHDOG_ON,
    Guest,
    ages,
    hang_at,
    running,
)
from tests.vmtest.errors import MachineLost
from tests.vmtest.machine import Machine

LOAD = (
    "[ -e /sys/module/ramoops ] || { insmod /modules/reed_solomon.ko 2>/dev/null; "
    "insmod /modules/ramoops.ko $(tr ' ' '\\n' </proc/cmdline | sed -n 's/^ramoops[.]//p'); }"
)
ZONES = (
    "ramoops.mem_address=0x30000000 ramoops.mem_size=0x100000 ramoops.record_size=0x4000 "
    "ramoops.console_size=0x20000 ramoops.pmsg_size=0x2000 ramoops.ftrace_size=0x2000"
)
KEXEC_ZONE = "ramoops.kexec_console_size=0x40000"
# The first zone that is set up is the console's, and its ECC does not fit into it.
BAD_ZONE = (
    "ramoops.mem_address=0x30000000 ramoops.mem_size=0x2000 ramoops.record_size=0 "
    "ramoops.console_size=0x1000 ramoops.pmsg_size=0 ramoops.ftrace_size=0 ramoops.ecc=4000"
)
RESERVE = "memmap=1M$0x30000000 crashkernel=256M"


def _crash(machine: Guest, zones: str, token: str, more: str = "") -> None:
    """Boot, leave a token, crash, and leave another one in the crash kernel."""
    machine.boot("normal")
    machine.run(LOAD)
    machine.run(f"echo first-{token} >/dev/kmsg")
    machine.load_crash_kernel(f"{zones} nr_cpus=1 panic=1 {more}")
    machine.crash()
    machine.run(LOAD)
    machine.run(f"echo '<14>crash-{token}' >/dev/kmsg")


def _guest(
    hardware: Machine, zones: str, directory: Path, *devices: str
) -> AbstractContextManager[Guest]:
    booted = hardware.with_append(*RESERVE.split(), *zones.split())
    return running(replace(booted, arguments=devices), directory)


@pytest.mark.parametrize("ecc", [0, 1])
def test_both_consoles_are_kept(patched: Machine, tmp_path: Path, token: str, ecc: int) -> None:
    zones = f"{ZONES} {KEXEC_ZONE} ramoops.ecc={ecc}"
    with _guest(patched, zones, tmp_path) as machine:
        _crash(machine, zones, token)
        # Also what the crashed kernel said is there to be saved at once ...
        assert f"first-{token}" in machine.records()["console-ramoops-0"]
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        records = machine.records()
        no_complaints(machine)
    # ... and after the reset, beside the log of the crash kernel, from its start to its end.
    assert f"first-{token}" in records["console-ramoops-0"]
    assert "sysrq triggered crash" in records["console-ramoops-0"]
    assert f"crash-{token}" not in records["console-ramoops-0"]
    crash = records["kexec-console-ramoops-0"]
    assert f"crash-{token}" in crash
    assert "Linux version" in crash
    assert "Restarting system" in crash
    assert f"first-{token}" not in crash


def test_normal_boots_keep_it_until_it_is_removed(
    patched: Machine, tmp_path: Path, token: str
) -> None:
    zones = f"{ZONES} {KEXEC_ZONE}"
    with _guest(patched, zones, tmp_path) as machine:
        _crash(machine, zones, token)
        for _ in range(2):
            machine.post("reboot -f")
            machine.boot("normal")
            machine.run(LOAD)
            assert f"crash-{token}" in machine.records()["kexec-console-ramoops-0"]
        machine.run("rm /pstore/kexec-console-ramoops-0")
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        assert "kexec-console-ramoops-0" not in machine.records()
        no_complaints(machine)


def test_panic_of_the_crash_kernel(patched: Machine, tmp_path: Path, token: str) -> None:
    zones = f"{ZONES} {KEXEC_ZONE}"
    with _guest(patched, zones, tmp_path) as machine:
        _crash(machine, zones, token)
        machine.post("echo c >/proc/sysrq-trigger")
        machine.boot("normal")
        machine.run(LOAD)
        records = machine.records()
    crash = records["kexec-console-ramoops-0"]
    assert f"crash-{token}" in crash
    assert "end Kernel panic" in crash or "Rebooting in 1 seconds" in crash
    assert f"first-{token}" in records["console-ramoops-0"]
    # Its dump went to a free slot, as no slot was taken: the first one.
    assert f"crash-{token}" in records["dmesg-ramoops-0"]


@pytest.mark.parametrize("seconds", HANGS)
def test_hang(patched: Machine, tmp_path: Path, token: str, seconds: int) -> None:
    """The last line is in RAM before the watchdog resets the machine."""
    zones = f"{ZONES} {KEXEC_ZONE}"
    with _guest(patched, zones, tmp_path, *WATCHDOG) as machine:
        _crash(machine, zones, token)
        hang_at(machine, seconds, token)
        machine.run(LOAD)
        stored = ages(token, machine.records()["kexec-console-ramoops-0"])
        said = ages(token, machine.console)
    print(f"hung at {said[-1]} s, stored until {stored[-1]} s")
    assert stored == said


def test_full_zone_has_the_newest_lines(patched: Machine, tmp_path: Path, token: str) -> None:
    zones = f"{ZONES} ramoops.kexec_console_size=0x1000"
    with _guest(patched, zones, tmp_path) as machine:
        _crash(machine, zones, token, "printk.devkmsg=on")
        machine.run(FLOOD)
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        crash = machine.records()["kexec-console-ramoops-0"]
    assert len(crash) < 0x1000
    assert "line 1500 " in crash


def test_removed_while_the_next_one_is_written(
    patched: Machine, tmp_path: Path, token: str
) -> None:
    """In a crash kernel the file is that of an earlier crash; the zone has its own log by then."""
    zones = f"{ZONES} {KEXEC_ZONE}"
    with _guest(patched, zones, tmp_path) as machine:
        _crash(machine, zones, token)
        machine.post("reboot -f")
        _crash(machine, zones, f"second-{token}")
        old = machine.records()["kexec-console-ramoops-0"]
        machine.run("rm /pstore/kexec-console-ramoops-0")
        machine.run(f"echo '<14>late-{token}' >/dev/kmsg")
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        crash = machine.records()["kexec-console-ramoops-0"]
    assert f"crash-{token}" in old
    assert f"crash-{token}" not in crash
    assert f"crash-second-{token}" in crash
    assert f"late-{token}" in crash


def test_dump_that_was_there_is_not_taken_for_a_crash_kernels_log(
    patched: Machine, tmp_path: Path
) -> None:
    """With other parameters, the last of the zones for dumps is where the console's is now."""
    with _guest(patched, f"{ZONES} {KEXEC_ZONE}", tmp_path) as machine:
        machine.boot("normal")
        machine.run(
            "insmod /modules/reed_solomon.ko 2>/dev/null; insmod /modules/ramoops.ko "
            "mem_address=0x30000000 mem_size=0x100000 record_size=0x40000 console_size=0 "
            "pmsg_size=0 ftrace_size=0"
        )
        for _ in range(4):
            machine.run(OOPS)
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        assert "kexec-console-ramoops-0" not in machine.records()


def test_dump_of_the_crashed_kernel_is_not_overwritten(
    patched: Machine, tmp_path: Path, token: str
) -> None:
    """An oops of the first kernel is in slot 0 when the crash kernel starts, and stays there."""
    zones = f"{ZONES} {KEXEC_ZONE}"
    with _guest(patched, zones, tmp_path) as machine:
        machine.boot("normal")
        machine.run(LOAD)
        machine.run(f"echo first-{token} >/dev/kmsg")
        machine.run(OOPS)
        machine.load_crash_kernel(f"{zones} nr_cpus=1 panic=1")
        machine.crash()
        machine.run(LOAD)
        machine.run(f"echo '<14>crash-{token}' >/dev/kmsg")
        machine.post("echo c >/proc/sysrq-trigger")
        machine.boot("normal")
        machine.run(LOAD)
        records = machine.records()
    assert f"first-{token}" in records["dmesg-ramoops-0"]
    assert f"crash-{token}" not in records["dmesg-ramoops-0"]
    assert f"crash-{token}" in records["dmesg-ramoops-1"]


def test_oops_and_hang_with_interrupts_off(patched: Machine, tmp_path: Path, token: str) -> None:
    """The last line is in RAM before the watchdog resets the machine."""
    zones = f"{ZONES} {KEXEC_ZONE}"
    with _guest(patched, zones, tmp_path, *WATCHDOG) as machine:
        _crash(machine, zones, token)
        machine.run(WATCHDOG_ON)
        machine.run(OOPS)
        machine.post(f"echo '<14>last-{token}' >/dev/kmsg; {HANG}")
        machine.boot("normal")
        machine.run(LOAD)
        records = machine.records()
    assert "kernel BUG at" in records["kexec-console-ramoops-0"]
    assert f"last-{token}" in records["kexec-console-ramoops-0"]
    assert f"first-{token}" in records["console-ramoops-0"]


@pytest.mark.parametrize("mode", ["auto", "off", "of"])
def test_normal_boot_writes_nothing(patched: Machine, tmp_path: Path, mode: str) -> None:
    zones = f"{ZONES} {KEXEC_ZONE} pstore.kexec_console={mode}"
    with _guest(patched, zones, tmp_path) as machine:
        machine.boot("normal")
        machine.run(LOAD)
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        records = machine.records()
        no_complaints(machine)
    assert "console-ramoops-0" in records
    assert not [name for name in records if name.startswith("kexec-console")]


def test_off_in_a_crash_kernel(patched: Machine, tmp_path: Path, token: str) -> None:
    zones = f"{ZONES} {KEXEC_ZONE}"
    with _guest(patched, zones, tmp_path) as machine:
        _crash(machine, zones, token, "pstore.kexec_console=off")
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        records = machine.records()
        no_complaints(machine)
    assert "kexec-console-ramoops-0" not in records
    assert f"first-{token}" in records["console-ramoops-0"]


def test_bad_zone(patched: Machine, tmp_path: Path) -> None:
    """An error, and no oops while it is cleaned up."""
    with _guest(patched, BAD_ZONE, tmp_path) as machine:
        machine.boot("normal")
        machine.run(f"{LOAD} || true")
        assert "failed to request console mem region" in machine.run("dmesg")
        no_complaints(machine)


def test_stock_kernel_loses_the_first_console(stock: Machine, tmp_path: Path, token: str) -> None:
    """What "pstore/ram: keep the crashed kernel's records" is about."""
    with _guest(stock, ZONES, tmp_path) as machine:
        _crash(machine, ZONES, token)
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        records = machine.records()
    assert f"first-{token}" not in records["console-ramoops-0"]
    assert f"crash-{token}" in records["console-ramoops-0"]


def test_stock_kernel_oopses_on_a_bad_zone(stock: Machine, tmp_path: Path) -> None:
    """What "pstore/ram: do not free a zone that could not be set up" is about."""
    with _guest(stock, BAD_ZONE, tmp_path) as machine:
        # A kernel that has it built in does not get any further.
        with contextlib.suppress(MachineLost):
            machine.boot("normal", 120)
            machine.run(f"{LOAD} || true")
        assert "persistent_ram_free" in machine.console
