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
    OOPS,
    WATCHDOG,
    WATCHDOG_ON,
    Guest,
    console_records,
    running,
)
from tests.vmtest.machine import Machine

# What the backend asks for (kexec_records in drivers/acpi/apei/erst.c).
LIMIT = 4
CRASHES = 20


def _guest(
    hardware: Machine, directory: Path, *devices: str, command_line: str = ""
) -> AbstractContextManager[Guest]:
    """Its records are in erst.img of the directory."""
    booted = hardware.with_append("crashkernel=256M", *command_line.split())
    return running(replace(booted, erst_kib=64, arguments=devices), directory)


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
        machine.run(f"echo '<14>crash-{token}' >/dev/kmsg")
        machine.post("reboot -f")
        machine.boot("normal")
        records = console_records(machine.records())
        no_complaints(machine)
    stored = erst.consoles(tmp_path / "erst.img")
    section = erst.KEXEC_CONSOLE_Z if compress == "deflate" else erst.KEXEC_CONSOLE
    assert {record.section for record in stored} == {section}
    assert len(records) == len(stored) <= LIMIT
    text = "".join(records)
    assert records[0].startswith("kexec-console Part1\n")
    assert "Linux version" in records[0]
    assert f"crash-{token}" in text
    assert "Restarting system" in text


def test_panic_of_the_crash_kernel(patched: Machine, tmp_path: Path, token: str) -> None:
    with _guest(patched, tmp_path) as machine:
        _crash(machine)
        machine.run(f"echo '<14>crash-{token}' >/dev/kmsg")
        machine.post("echo c >/proc/sysrq-trigger")
        machine.boot("normal")
        records = console_records(machine.records())
    assert f"crash-{token}" in "".join(records)
    assert "Kernel panic - not syncing" in "".join(records)
    # The emergency restart that follows the panic has a record of its own.
    assert "Rebooting in 1 seconds" in records[-1]
    assert len(erst.consoles(tmp_path / "erst.img")) <= LIMIT


def test_emergency_restart_of_the_crash_kernel(
    patched: Machine, tmp_path: Path, token: str
) -> None:
    with _guest(patched, tmp_path) as machine:
        _crash(machine)
        machine.post(f"echo '<14>crash-{token}' >/dev/kmsg; echo b >/proc/sysrq-trigger")
        machine.boot("normal")
        records = console_records(machine.records())
    assert f"crash-{token}" in records[-1]


def test_hang_loses_what_waits_for_its_record(patched: Machine, tmp_path: Path, token: str) -> None:
    with _guest(patched, tmp_path, *WATCHDOG) as machine:
        _crash(machine)
        machine.run(f"echo '<14>early-{token}' >/dev/kmsg")
        # An incomplete record waits 4 s at first, then 8 s: both are over.
        machine.run("sleep 14")
        machine.run(WATCHDOG_ON)
        machine.post(f"echo '<14>last-{token}' >/dev/kmsg; {HANG}")
        machine.boot("normal")
        text = "".join(console_records(machine.records()))
    assert f"early-{token}" in text
    assert f"last-{token}" not in text


def test_oops_is_stored_before_a_hang(patched: Machine, tmp_path: Path, token: str) -> None:
    """It has a record at once. What comes after it waits for its record, and is lost."""
    with _guest(patched, tmp_path, *WATCHDOG) as machine:
        _crash(machine)
        machine.run(WATCHDOG_ON)
        machine.run(f"echo '<14>before-{token}' >/dev/kmsg; {OOPS}")
        machine.post(f"echo '<14>last-{token}' >/dev/kmsg; {HANG}")
        machine.boot("normal")
        text = "".join(console_records(machine.records()))
    assert f"before-{token}" in text
    assert "kernel BUG at" in text
    assert f"last-{token}" not in text


def test_many_crashes_stay_within_the_limit(patched: Machine, tmp_path: Path, token: str) -> None:
    """Nobody collects or removes a record. A log that is long each second time.

    Counted in the file behind the device: what is there after each crash, and what of it is new.
    """
    store = tmp_path / "erst.img"
    counts, writes, before = [], [], set[int]()
    with _guest(patched, tmp_path, command_line="quiet") as machine:
        machine.boot("normal")
        for crash in range(CRASHES):
            _crash_now(machine, "quiet printk.devkmsg=on")
            machine.run(f"echo '<14>crash-{crash}-{token}' >/dev/kmsg")
            if crash % 2:
                machine.run(FLOOD)
            machine.post("reboot -f")
            machine.boot("normal")
            now = {record.id for record in erst.consoles(store)}
            counts.append(len(now))
            writes.append(len(now - before))
            before = now
        records = console_records(machine.records())
        no_complaints(machine)
    print(f"occupied after each crash: {counts}, written by each: {writes}")
    assert max(counts) <= LIMIT
    assert 1 <= min(writes) <= max(writes) <= LIMIT
    text = "".join(records)
    assert f"crash-{CRASHES - 1}-{token}" in text
    assert "line 1500 " in records[-1]


def test_full_store(patched: Machine, tmp_path: Path, token: str) -> None:
    """Dumps of others fill it: no hang, no warning, the crash kernel goes on."""
    store = tmp_path / "erst.img"
    with _guest(patched, tmp_path) as machine:
        machine.boot("normal")
        # Each oops takes at least one of the 7 records.
        for _ in range(8):
            machine.run(OOPS)
        assert len(erst.records(store)) == 7
        machine.load_crash_kernel("nr_cpus=1 panic=1")
        machine.crash()
        machine.run(f"echo '<14>crash-{token}' >/dev/kmsg")
        machine.run("sleep 10")
        log = machine.run("dmesg")
        assert "giving up on the console of this crash kernel" in log
        assert "WARNING:" not in log
        machine.post("reboot -f")
        machine.boot("normal")
        records = machine.records()
    assert len(records) == 7
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
