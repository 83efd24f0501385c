# SPDX-License-Identifier: GPL-2.0-or-later
"""EFI variables, with the firmware that QEMU is used with."""

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from tests.kernel.pstore import efivars
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
from tests.vmtest.machine import OVMF, Machine

# What the backend asks for (kexec_records in drivers/firmware/efi/efi-pstore.c).
LIMIT = 16
CRASHES = 20
# Its module parameter of that name, by default.
RECORD_SIZE = 1024
LOAD = (
    "[ -e /modules/efi-pstore.ko ] && ! [ -e /sys/module/efi_pstore ] "
    "&& insmod /modules/efi-pstore.ko; "
    "mkdir -p /efivars; grep -q ' /efivars ' /proc/mounts || mount -t efivarfs efivarfs /efivars"
)


# Until the kernel or the firmware takes no more. A variable is what one write has; the first
# four bytes are its attributes.
FILL = (
    "i=0; for size in 8000 1000 100; do "
    "{ printf '\\007\\000\\000\\000'; head -c $size /dev/urandom; } >/tmp/value; "
    "while dd bs=64k if=/tmp/value of=/efivars/full-$i-12345678-1234-1234-1234-123456789abc; "
    "do i=$((i + 1)); done; done 2>/dev/null; [ $i -gt 10 ]"
)


def _guest(
    hardware: Machine, directory: Path, command_line: str = "", *devices: str
) -> AbstractContextManager[Guest]:
    """Its variables are in OVMF.copy(directory)."""
    booted = hardware.with_append("crashkernel=256M", *command_line.split())
    machine = replace(booted, model="q35", firmware=OVMF, arguments=devices)
    return running(machine, directory)


def _crash(machine: Guest, more: str = "") -> None:
    machine.boot("normal")
    _crash_now(machine, more)


def _crash_now(machine: Guest, more: str) -> None:
    machine.load_crash_kernel(f"nr_cpus=1 panic=1 {more}")
    machine.crash()
    machine.run(LOAD)


def _variables(machine: Guest) -> list[str]:
    # What others do to the variables is only seen by a new mount.
    names = machine.run("umount /efivars; mount -t efivarfs efivarfs /efivars; ls /efivars")
    return [name for name in names.split() if name.startswith("dump-type9-")]


def test_reboot_of_the_crash_kernel(patched: Machine, tmp_path: Path, token: str) -> None:
    with _guest(patched, tmp_path) as machine:
        _crash(machine)
        machine.run(f"echo '<14>crash-{token}' >/dev/kmsg")
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        records = console_records(machine.records())
        assert 1 <= len(records) == len(_variables(machine)) <= LIMIT
        machine.run("rm /pstore/kexec-console-*")
        assert not _variables(machine)
        no_complaints(machine)
    assert records[0].startswith("kexec-console Part1\n")
    assert "Linux version" in records[0]
    assert f"crash-{token}" in "".join(records)
    assert "Restarting system" in records[-1]


def test_panic_of_the_crash_kernel(patched: Machine, tmp_path: Path, token: str) -> None:
    with _guest(patched, tmp_path) as machine:
        _crash(machine)
        machine.run(f"echo '<14>crash-{token}' >/dev/kmsg")
        machine.post("echo c >/proc/sysrq-trigger")
        machine.boot("normal")
        machine.run(LOAD)
        records = console_records(machine.records())
    assert f"crash-{token}" in "".join(records)
    assert "Kernel panic - not syncing" in "".join(records)


def test_oops_is_stored_before_a_hang(patched: Machine, tmp_path: Path, token: str) -> None:
    """It has a record at once. What comes after it waits for its record, and is lost."""
    with _guest(patched, tmp_path, "", *WATCHDOG) as machine:
        _crash(machine)
        machine.run(WATCHDOG_ON)
        machine.run(f"echo '<14>before-{token}' >/dev/kmsg; {OOPS}")
        machine.post(f"echo '<14>last-{token}' >/dev/kmsg; {HANG}")
        machine.boot("normal")
        machine.run(LOAD)
        text = "".join(console_records(machine.records()))
    assert f"before-{token}" in text
    assert "kernel BUG at" in text
    assert f"last-{token}" not in text


def test_crashes_stay_within_the_limit(patched: Machine, tmp_path: Path, token: str) -> None:
    """Nobody removes a variable, and each second log is longer than what may be stored.

    Counted in the flash: what is there after each crash, and what of it is new.
    """
    flash = OVMF.copy(tmp_path)
    counts, writes, before = [], [], set[str]()
    with _guest(patched, tmp_path, "quiet") as machine:
        machine.boot("normal")
        for crash in range(CRASHES):
            _crash_now(machine, "quiet printk.devkmsg=on")
            machine.run(f"echo '<14>crash-{crash}-{token}' >/dev/kmsg")
            if crash % 2:
                machine.run(FLOOD)
            machine.post("reboot -f")
            machine.boot("normal")
            now = {variable.name for variable in efivars.consoles(flash)}
            counts.append(len(now))
            writes.append(len(now - before))
            before = now
        machine.run(LOAD)
        assert len(_variables(machine)) == counts[-1]
        records = console_records(machine.records())
        no_complaints(machine)
    print(f"occupied after each crash: {counts}, written by each: {writes}")
    assert max(counts) == LIMIT
    assert 1 <= min(writes) <= max(writes) <= LIMIT
    assert max(variable.size for variable in efivars.consoles(flash)) <= RECORD_SIZE
    # What is left of the crash before comes first.
    newest = max(n for n, text in enumerate(records) if text.startswith("kexec-console Part1\n"))
    assert "Linux version" in records[newest]
    assert f"crash-{CRASHES - 1}-{token}" in "".join(records)
    assert "line 1500 " in records[-1]


def test_full_store(patched: Machine, tmp_path: Path, token: str) -> None:
    """Of others: no hang, no warning, the crash kernel goes on."""
    with _guest(patched, tmp_path) as machine:
        machine.boot("normal")
        machine.run(LOAD)
        machine.run(FILL, 300)
        machine.load_crash_kernel("nr_cpus=1 panic=1")
        machine.crash()
        machine.run(LOAD)
        machine.run(f"echo '<14>crash-{token}' >/dev/kmsg")
        machine.run("sleep 10")
        log = machine.run("dmesg")
        assert "giving up on the console of this crash kernel" in log
        assert "WARNING:" not in log
        machine.post("reboot -f")
        machine.boot("normal")
    assert not efivars.consoles(OVMF.copy(tmp_path))


def test_normal_boot_writes_nothing(patched: Machine, tmp_path: Path) -> None:
    with _guest(patched, tmp_path) as machine:
        machine.boot("normal")
        machine.run(LOAD)
        machine.run("sleep 10")
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        assert not _variables(machine)
        no_complaints(machine)
    assert not efivars.crash_records(OVMF.copy(tmp_path))


def _unknown_variable(machine: Guest) -> str:
    machine.boot("normal")
    machine.run(LOAD)
    machine.run(
        rf"printf '\007\000\000\000text' >/efivars/dump-type99-1-1-1700000000-D-{efivars.CRASH}"
    )
    assert any(name.startswith("unknown-efi_pstore-") for name in machine.records())
    return machine.run("dmesg")


def test_record_of_a_newer_kernel(patched: Machine, tmp_path: Path) -> None:
    with _guest(patched, tmp_path) as machine:
        assert "WARNING:" not in _unknown_variable(machine)


def test_stock_kernel_warns_of_a_record_of_a_newer_kernel(stock: Machine, tmp_path: Path) -> None:
    with _guest(stock, tmp_path) as machine:
        log = _unknown_variable(machine)
    assert "WARNING:" in log
    assert "pstore_type_to_name" in log
