# SPDX-License-Identifier: GPL-2.0-or-later
"""ERST, which holds whole records: what is written is counted in the file behind the device."""

import uuid
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.pstore import erst
from tests.kernel.pstore.conftest import no_complaints
from tests.kernel.pstore.machine import (
    FLOOD,
    HANG,
    HANGS,
    OOPS,
    WATCHDOG,
    WATCHDOG_ON,
    Guest,
    assert_two_thirds,
    hang_at,
    logs,
    running,
)
from tests.vmtest.machine import Machine

# What the backend asks for (kexec_records and kexec_writes in drivers/acpi/apei/erst.c).
LIMIT = 4
CALLS = 40
# What QEMU's 64 KiB hold.
ALL = 7
CRASHES = 20


def _guest(
    hardware: Machine, directory: Path, *devices: str, command_line: str = "", kib: int = 64
) -> AbstractContextManager[Guest]:
    """Its records are in erst.img of the directory."""
    booted = hardware.with_append("crashkernel=256M", *command_line.split())
    return running(replace(booted, erst_kib=kib, arguments=devices), directory)


def _crash(machine: Guest, more: str = "") -> None:
    machine.boot("normal")
    _crash_now(machine, more)


def _crash_now(machine: Guest, more: str) -> None:
    machine.load_crash_kernel(f"nr_cpus=1 panic=1 {more}")
    machine.crash()


@pytest.mark.parametrize("compress", ["deflate", "none"])
def test_reboot_of_the_crash_kernel(
    patched: Machine, tmp_path: Path, token: str, compress: str
) -> None:
    with _guest(patched, tmp_path) as machine:
        _crash(machine, f"pstore.compress={compress}")
        machine.run(f"echo '<13>crash-{token}' >/dev/kmsg; echo '<14>info-{token}' >/dev/kmsg")
        machine.post("reboot -f")
        machine.boot("normal")
        (log,) = logs(machine.records())
        no_complaints(machine)
    stored = erst.consoles(tmp_path / "erst.img")
    section = erst.KEXEC_CONSOLE_Z if compress == "deflate" else erst.KEXEC_CONSOLE
    assert {record.section for record in stored} == {section}
    assert len(stored) <= LIMIT
    assert "Linux version" in log
    assert f"crash-{token}" in log
    # Only what is less severe than the level is left out, and whoever said it.
    assert f"info-{token}" not in log


def test_panic_of_the_crash_kernel(patched: Machine, tmp_path: Path, token: str) -> None:
    with _guest(patched, tmp_path) as machine:
        _crash(machine)
        machine.run("sleep 3")
        before = len(erst.consoles(tmp_path / "erst.img"))
        machine.run(f"echo '<13>crash-{token}' >/dev/kmsg")
        machine.post("echo c >/proc/sysrq-trigger")
        machine.boot("normal")
        (log,) = logs(machine.records())
    assert f"crash-{token}" in log
    assert "Kernel panic - not syncing" in log
    # The emergency restart that follows the panic has no record of its own.
    assert "Rebooting in 1 seconds" not in log
    assert before <= len(erst.consoles(tmp_path / "erst.img")) <= before + 1


def test_emergency_restart_of_the_crash_kernel(
    patched: Machine, tmp_path: Path, token: str
) -> None:
    with _guest(patched, tmp_path) as machine:
        _crash(machine)
        machine.post(f"echo '<13>crash-{token}' >/dev/kmsg; echo b >/proc/sysrq-trigger")
        machine.boot("normal")
        (log,) = logs(machine.records())
    assert f"crash-{token}" in log


@pytest.mark.parametrize("seconds", HANGS)
def test_hang(patched: Machine, tmp_path: Path, token: str, seconds: int) -> None:
    with _guest(patched, tmp_path, *WATCHDOG) as machine:
        _crash(machine)
        hang_at(machine, seconds, token)
        (log,) = logs(machine.records())
        print(assert_two_thirds(token, log, machine.console))
    assert erst.writes(tmp_path / "erst.img") < CALLS


def test_oops_is_stored_before_a_hang(patched: Machine, tmp_path: Path, token: str) -> None:
    """It has a record at once, however many old ones there are.

    Both oopses have up to three "dmesg" records as well, written before it: too many for 64 KiB.
    """
    with _guest(patched, tmp_path, *WATCHDOG, command_line="quiet", kib=128) as machine:
        machine.boot("normal")
        for crash in range(2):
            _crash_now(machine, "printk.devkmsg=on")
            machine.run(FLOOD)
            machine.run(WATCHDOG_ON)
            machine.run(f"echo '<13>before-{crash}-{token}' >/dev/kmsg; {OOPS}")
            machine.post(HANG)
            machine.boot("normal")
        log = logs(machine.records())[-1]
    assert f"before-1-{token}" in log
    assert "kernel BUG at" in log
    assert len(erst.consoles(tmp_path / "erst.img")) <= LIMIT


def test_many_crashes_stay_within_the_limits(patched: Machine, tmp_path: Path, token: str) -> None:
    """Nobody collects or removes a record. A log that is long each second time.

    Counted in the file behind the device: what is there after each crash, and by the IDs how many
    records were written. Those that are no longer there were erased.
    """
    store = tmp_path / "erst.img"
    counts, writes, calls = [], [], []
    with _guest(patched, tmp_path, command_line="quiet") as machine:
        machine.boot("normal")
        for crash in range(CRASHES):
            before = len(erst.consoles(store))
            _crash_now(machine, "quiet printk.devkmsg=on")
            machine.run(f"echo '<13>crash-{crash}-{token}' >/dev/kmsg")
            if crash % 2:
                machine.run(FLOOD)
            machine.post("reboot -f")
            machine.boot("normal")
            counts.append(len(erst.consoles(store)))
            writes.append(erst.writes(store))
            calls.append(2 * writes[-1] + before - counts[-1])
        records = machine.records()
        no_complaints(machine)
    print(f"occupied after each crash: {counts}, written: {writes}, written and erased: {calls}")
    assert max(counts) <= LIMIT
    assert min(writes) >= 1
    assert max(calls) <= CALLS
    log = logs(records)[-1]
    assert f"crash-{CRASHES - 1}-{token}" in log or "line 1500 " in log
    assert "line 1500 " in log


def test_full_store(patched: Machine, tmp_path: Path, token: str) -> None:
    """Dumps of others fill it: no hang, no warning, the crash kernel goes on."""
    store = tmp_path / "erst.img"
    with _guest(patched, tmp_path) as machine:
        machine.boot("normal")
        # Each oops takes at least one of the records.
        for _ in range(ALL + 1):
            machine.run(OOPS)
        assert len(erst.records(store)) == ALL
        machine.load_crash_kernel("nr_cpus=1 panic=1")
        machine.crash()
        machine.run(f"echo '<13>crash-{token}' >/dev/kmsg")
        machine.run("sleep 15")
        log = machine.run("dmesg")
        assert "giving up on the log of this crash kernel" in log
        assert "WARNING:" not in log
        machine.post("reboot -f")
        machine.boot("normal")
        assert len(machine.records()) == ALL
    assert not erst.consoles(store)


def test_records_that_cannot_be_read(patched: Machine, tmp_path: Path, token: str) -> None:
    """Nobody knows how many there are: nothing is written, not even by a panic."""
    store = tmp_path / "erst.img"
    with _guest(patched, tmp_path) as machine:
        machine.boot("normal")
        machine.run(OOPS)
        for record in erst.records(store):
            erst.damage(store, record)
        before = store.read_bytes()
        _crash_now(machine, "")
        machine.run(f"echo '<13>crash-{token}' >/dev/kmsg; sleep 5")
        assert "nothing of this log is stored: cannot tell" in machine.run("dmesg")
        assert store.read_bytes() == before
        machine.post("echo c >/proc/sysrq-trigger")
        machine.boot("normal")
    assert not erst.consoles(store)


def test_normal_boot_writes_nothing(patched: Machine, tmp_path: Path) -> None:
    with _guest(patched, tmp_path) as machine:
        machine.boot("normal")
        store = (tmp_path / "erst.img").read_bytes()  # as QEMU has formatted it
        machine.run("sleep 10")
        machine.post("reboot -f")
        machine.boot("normal")
        assert not machine.records()
        no_complaints(machine)
    assert (tmp_path / "erst.img").read_bytes() == store
    assert not erst.records(tmp_path / "erst.img")


def _unknown_record(machine: Guest, store: Path) -> str:
    """Have an oops recorded, change the type of the record, and see what the next boot says."""
    machine.boot("normal")
    machine.run(OOPS)
    for record in erst.records(store):
        erst.change_section(store, record, uuid.uuid4())
    machine.post("reboot -f")
    machine.boot("normal")
    machine.run("dmesg -c >/dev/null")
    names = " ".join(machine.records())
    assert "unknown-erst-" in names
    machine.run("rm /pstore/unknown-erst-*")
    assert not erst.records(store)
    return machine.run("dmesg")


def test_record_of_a_newer_kernel(patched: Machine, tmp_path: Path) -> None:
    with _guest(patched, tmp_path) as machine:
        assert "WARNING:" not in _unknown_record(machine, tmp_path / "erst.img")


def test_stock_kernel_warns_of_a_record_of_a_newer_kernel(stock: Machine, tmp_path: Path) -> None:
    """What "pstore: do not warn about record types of a newer kernel" is about."""
    with _guest(stock, tmp_path) as machine:
        log = _unknown_record(machine, tmp_path / "erst.img")
    assert "WARNING:" in log
    assert "pstore_type_to_name" in log
