"""EFI variables, with the firmware that QEMU is used with."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.pstore.conftest import no_complaints
from tests.kernel.pstore.machine import Hardware, Machine, console_records

FIRMWARE = Path("/usr/share/OVMF")
# What the backend asks for (kexec_records in drivers/firmware/efi/efi-pstore.c).
LIMIT = 16
CRASHES = 5
CRASH_GUID = "cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0"
LOAD = (
    "[ -e /modules/efi-pstore.ko ] && ! [ -e /sys/module/efi_pstore ] "
    "&& insmod /modules/efi-pstore.ko; "
    "mkdir -p /efivars; grep -q ' /efivars ' /proc/mounts || mount -t efivarfs efivarfs /efivars"
)


def _guest(hardware: Hardware, directory: Path, command_line: str = "") -> Machine:
    variables = directory / "variables.fd"
    if not (FIRMWARE / "OVMF_VARS_4M.fd").exists():
        pytest.fail("ovmf is not installed (run: make deps)", pytrace=False)
    if not variables.exists():
        shutil.copy(FIRMWARE / "OVMF_VARS_4M.fd", variables)
    firmware = (
        "-machine", "q35",
        "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE / 'OVMF_CODE_4M.fd'}",
        "-drive", f"if=pflash,unit=1,format=raw,file={variables}",
    )  # fmt: skip
    return Machine(
        replace(hardware, command_line=f"crashkernel=256M {command_line}", devices=firmware),
        directory,
    )


def _crash(machine: Machine, more: str = "") -> None:
    machine.boot("normal")
    machine.run(LOAD)
    machine.load_crash_kernel(f"nr_cpus=1 panic=1 {more}")
    machine.crash()
    machine.run(LOAD)


def _variables(machine: Machine) -> list[str]:
    # What others do to the variables is only seen by a new mount.
    names = machine.run("umount /efivars; mount -t efivarfs efivarfs /efivars; ls /efivars")
    return [name for name in names.split() if name.startswith("dump-type9-")]


def test_reboot_of_the_crash_kernel(patched: Hardware, tmp_path: Path, token: str) -> None:
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


def test_panic_of_the_crash_kernel(patched: Hardware, tmp_path: Path, token: str) -> None:
    with _guest(patched, tmp_path) as machine:
        _crash(machine)
        machine.run(f"echo '<14>crash-{token}' >/dev/kmsg")
        machine.post("echo c >/proc/sysrq-trigger")
        machine.boot("normal")
        machine.run(LOAD)
        records = console_records(machine.records())
    assert f"crash-{token}" in "".join(records)
    assert "Kernel panic - not syncing" in "".join(records)


def test_crashes_stay_within_the_limit(patched: Hardware, tmp_path: Path, token: str) -> None:
    """Nobody removes a variable, and each log is longer than what may be stored."""
    counts = []
    with _guest(patched, tmp_path, "quiet") as machine:
        for crash in range(CRASHES):
            _crash(machine, "quiet printk.devkmsg=on")
            machine.run(f"echo '<14>crash-{crash}-{token}' >/dev/kmsg")
            machine.run(
                "i=0; while [ $i -lt 1500 ]; do i=$((i + 1)); "
                'echo "<14>line $i $RANDOM$RANDOM$RANDOM$RANDOM$RANDOM$RANDOM"; '
                "done >/dev/kmsg"
            )
            counts.append(len(_variables(machine)))
            machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        counts.append(len(_variables(machine)))
        records = console_records(machine.records())
        no_complaints(machine)
    assert max(counts) == LIMIT
    # What is left of the crash before comes first.
    newest = max(n for n, text in enumerate(records) if text.startswith("kexec-console Part1\n"))
    assert "Linux version" in records[newest]
    assert "line 1500 " in records[-1]


def test_normal_boot_writes_nothing(patched: Hardware, tmp_path: Path) -> None:
    with _guest(patched, tmp_path) as machine:
        machine.boot("normal")
        machine.run(LOAD)
        machine.run("sleep 10")
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        assert not _variables(machine)
        no_complaints(machine)


def _unknown_variable(machine: Machine) -> str:
    machine.boot("normal")
    machine.run(LOAD)
    machine.run(
        rf"printf '\007\000\000\000text' >/efivars/dump-type99-1-1-1700000000-D-{CRASH_GUID}"
    )
    assert any(name.startswith("unknown-efi_pstore-") for name in machine.records())
    return machine.run("dmesg")


def test_record_of_a_newer_kernel(patched: Hardware, tmp_path: Path) -> None:
    with _guest(patched, tmp_path) as machine:
        assert "WARNING:" not in _unknown_variable(machine)


def test_stock_kernel_warns_of_a_record_of_a_newer_kernel(stock: Hardware, tmp_path: Path) -> None:
    with _guest(stock, tmp_path) as machine:
        log = _unknown_variable(machine)
    assert "WARNING:" in log
    assert "pstore_type_to_name" in log
