# SPDX-License-Identifier: GPL-2.0-or-later
"""EFI variables, with the firmware that QEMU is used with."""

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.pstore import efivars
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
from tests.vmtest.machine import OVMF, Machine

# What the backend asks for (kexec_records and kexec_writes in drivers/firmware/efi/efi-pstore.c).
LIMIT = 16
CALLS = 64
# Of the records, those for a dump.
SHARE = LIMIT // 4
CRASHES = 20
# Its module parameter of that name, by default.
RECORD_SIZE = 1024
# Its variables are only written by whoever asks for it.
ASKED = "pstore.kexec_console=efi"
LOAD = (
    "[ -e /modules/efi-pstore.ko ] && ! [ -e /sys/module/efi_pstore ] "
    "&& insmod /modules/efi-pstore.ko; "
    "mkdir -p /efivars; grep -q ' /efivars ' /proc/mounts || mount -t efivarfs efivarfs /efivars"
)


# Until the kernel or the firmware takes no more. A variable is what one write has; the first
# four bytes are its attributes. Linux 6.12 leaves an empty file after a write that failed, which
# nobody can write to, so each try has a name of its own.
FILL = (
    "i=0; for size in 8000 1000 100; do "
    "{ printf '\\007\\000\\000\\000'; head -c $size /dev/urandom; } >/tmp/value; "
    "while i=$((i + 1)); "
    "dd bs=64k if=/tmp/value of=/efivars/full-$i-12345678-1234-1234-1234-123456789abc; "
    "do :; done; done 2>/dev/null; [ $i -gt 13 ]"
)


def _guest(
    hardware: Machine, directory: Path, command_line: str = "", *devices: str
) -> AbstractContextManager[Guest]:
    """Its variables are in OVMF.copy(directory)."""
    booted = hardware.with_append("crashkernel=256M", *command_line.split())
    machine = replace(booted, model="q35", firmware=OVMF, arguments=devices)
    return running(machine, directory)


def _crash(machine: Guest, more: str = ASKED) -> None:
    machine.boot("normal")
    _crash_now(machine, more)


def _crash_now(machine: Guest, more: str) -> None:
    machine.load_crash_kernel(f"nr_cpus=1 panic=1 {more}")
    machine.crash()
    machine.run(LOAD)


def _boot_again(machine: Guest) -> None:
    machine.boot("normal")
    machine.run(LOAD)


def _variables(machine: Guest) -> list[str]:
    # What others do to the variables is only seen by a new mount.
    names = machine.run("umount /efivars; mount -t efivarfs efivarfs /efivars; ls /efivars")
    return [name for name in names.split() if name.startswith("dump-type9-")]


@pytest.mark.parametrize("compress", ["deflate", "none"])
def test_reboot_of_the_crash_kernel(
    patched: Machine, tmp_path: Path, token: str, compress: str
) -> None:
    with _guest(patched, tmp_path) as machine:
        _crash(machine, f"{ASKED} pstore.compress={compress}")
        machine.run(f"echo '<13>crash-{token}' >/dev/kmsg; echo '<14>info-{token}' >/dev/kmsg")
        machine.post("reboot -f")
        _boot_again(machine)
        (log,) = logs(machine.records())
        variables = _variables(machine)
        assert 1 <= len(variables) <= LIMIT
        machine.run("rm /pstore/kexec-console-*")
        assert not _variables(machine)
        no_complaints(machine)
    # The last letter of the name says it, before the GUID.
    letter = "C" if compress == "deflate" else "D"
    assert {name.removesuffix(f"-{efivars.CRASH}")[-1] for name in variables} == {letter}
    assert "Linux version" in log
    assert f"crash-{token}" in log
    assert f"info-{token}" not in log
    assert "Restarting system" in log


@pytest.mark.parametrize("more", ["", "pstore.kexec_console=auto", "pstore.kexec_console=eif"])
def test_nothing_is_written_unasked(
    patched: Machine, tmp_path: Path, token: str, more: str
) -> None:
    """Nor where it is misspelled, which is said."""
    with _guest(patched, tmp_path) as machine:
        _crash(machine, more)
        machine.run(f"echo '<13>crash-{token}' >/dev/kmsg; sleep 5")
        said = "`eif' invalid for parameter `pstore.kexec_console'" in machine.run("dmesg")
        assert said == more.endswith("eif")
        machine.post("reboot -f")
        _boot_again(machine)
        assert not _variables(machine)
    assert not efivars.written(OVMF.copy(tmp_path))


def test_panic_of_the_crash_kernel(patched: Machine, tmp_path: Path, token: str) -> None:
    with _guest(patched, tmp_path) as machine:
        _crash(machine)
        machine.run("sleep 3")
        machine.run(f"echo '<13>crash-{token}' >/dev/kmsg")
        machine.post("echo c >/proc/sysrq-trigger")
        _boot_again(machine)
        (log,) = logs(machine.records())
    assert f"crash-{token}" in log
    assert "Kernel panic - not syncing" in log
    # The emergency restart that follows the panic has no record of its own.
    assert "Rebooting in 1 seconds" not in log


def test_panic_before_anybody_has_looked(patched: Machine, tmp_path: Path, token: str) -> None:
    """In the first second. It has the share of a dump: more than one record, and not all."""
    with _guest(patched, tmp_path) as machine:
        machine.boot("normal")
        machine.load_crash_kernel(f"nr_cpus=1 panic=1 {ASKED}")
        machine.crash()
        machine.run(f"echo '<13>crash-{token}' >/dev/kmsg")
        machine.post(f"{LOAD}; echo c >/proc/sysrq-trigger")
        _boot_again(machine)
        (log,) = logs(machine.records())
        written = efivars.written(OVMF.copy(tmp_path))
    print(f"{len(written)} records, {len(log)} bytes of text")
    assert 1 < len(written) <= SHARE
    assert f"crash-{token}" in log
    assert "Kernel panic - not syncing" in log


@pytest.mark.parametrize("seconds", HANGS)
def test_hang(patched: Machine, tmp_path: Path, token: str, seconds: int) -> None:
    with _guest(patched, tmp_path, "", *WATCHDOG) as machine:
        _crash(machine)
        # The backend is there only now, and a second passes before the worker runs.
        machine.run("sleep 2")
        hang_at(machine, seconds, token)
        machine.run(LOAD)
        (log,) = logs(machine.records())
        print(assert_two_thirds(token, log, machine.console))


def test_oops_is_stored_before_a_hang(patched: Machine, tmp_path: Path, token: str) -> None:
    """It has records at once."""
    with _guest(patched, tmp_path, "", *WATCHDOG) as machine:
        _crash(machine)
        machine.run("sleep 2")
        machine.run(WATCHDOG_ON)
        machine.run(f"echo '<13>before-{token}' >/dev/kmsg; {OOPS}")
        machine.post(HANG)
        _boot_again(machine)
        (log,) = logs(machine.records())
    assert f"before-{token}" in log
    assert "kernel BUG at" in log


def test_crashes_stay_within_the_limits(patched: Machine, tmp_path: Path, token: str) -> None:
    """Nobody removes a variable, and each second log is longer than what may be stored.

    Counted in the flash: what is there after each crash, and what was written for it, erased or
    not. The names have the number of the call, which counts erasures, too.
    """
    flash = OVMF.copy(tmp_path)
    counts, writes, calls = [], [], []
    seen = set[str]()
    with _guest(patched, tmp_path, "quiet") as machine:
        machine.boot("normal")
        for crash in range(CRASHES):
            before = len(efivars.consoles(flash))
            _crash_now(machine, f"quiet printk.devkmsg=on {ASKED}")
            machine.run(f"echo '<13>crash-{crash}-{token}' >/dev/kmsg")
            if crash % 2:
                machine.run(FLOOD)
            machine.post("reboot -f")
            machine.boot("normal")
            new = efivars.written(flash) - seen
            seen |= new
            counts.append(len(efivars.consoles(flash)))
            writes.append(len(new))
            calls.append(max(efivars.call(name) for name in new))
            # If the log did not grow any more, the last call erased the predecessor of the last
            # variable, and no name has its number.
            assert 2 * writes[-1] + before - counts[-1] <= calls[-1] + 1
        machine.run(LOAD)
        assert len(_variables(machine)) == counts[-1]
        log = logs(machine.records())[-1]
        no_complaints(machine)
    print(f"occupied after each crash: {counts}, written: {writes}, last call: {calls}")
    assert max(counts) <= LIMIT
    assert 1 <= min(writes) <= max(calls) + 1 <= CALLS
    assert max(variable.size for variable in efivars.consoles(flash)) <= RECORD_SIZE
    assert "Linux version" in log
    assert "line 1500 " in log


def test_full_store(patched: Machine, tmp_path: Path, token: str) -> None:
    """Of others: no hang, no warning, no dummy variable, and the crash kernel goes on."""
    flash = OVMF.copy(tmp_path)
    with _guest(patched, tmp_path) as machine:
        machine.boot("normal")
        machine.run(LOAD)
        machine.run(FILL, 300)
        machine.load_crash_kernel(f"nr_cpus=1 panic=1 {ASKED}")
        before = flash.read_bytes()
        machine.crash()
        machine.run(LOAD)
        machine.run(f"echo '<13>crash-{token}' >/dev/kmsg")
        machine.run("sleep 15")
        log = machine.run("dmesg")
        assert "giving up on the log of this crash kernel" in log
        assert "WARNING:" not in log
        # Not one bit. (The firmware takes minutes to boot with a store that is full.)
        assert flash.read_bytes() == before


def test_variables_that_cannot_be_read(patched: Machine, tmp_path: Path, token: str) -> None:
    """Nobody knows how many there are: nothing is written, not even by a panic."""
    with _guest(patched, tmp_path) as machine:
        machine.boot("normal")
        machine.run(LOAD)
        # Larger than what a record may be.
        machine.run(
            r"{ printf '\007\000\000\000'; head -c 2000 /dev/zero; } >/tmp/value; dd bs=64k "
            f"if=/tmp/value of=/efivars/dump-type9-1-1-1700000000-D-{efivars.CRASH} 2>&1"
        )
        _crash_now(machine, ASKED)
        machine.run(f"echo '<13>crash-{token}' >/dev/kmsg; sleep 5")
        assert "nothing of this log is stored: cannot tell" in machine.run("dmesg")
        machine.post("echo c >/proc/sysrq-trigger")
        _boot_again(machine)
    assert efivars.written(OVMF.copy(tmp_path)) == {"dump-type9-1-1-1700000000-D"}


def test_normal_boot_writes_nothing(patched: Machine, tmp_path: Path) -> None:
    with _guest(patched, tmp_path, ASKED) as machine:
        machine.boot("normal")
        machine.run(LOAD)
        machine.run("sleep 10")
        machine.post("reboot -f")
        _boot_again(machine)
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
