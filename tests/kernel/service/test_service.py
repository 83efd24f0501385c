# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump on the kernel with the series: no crashkernel=, and the crash log in pstore."""

import re
import secrets
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.pstore import erst
from tests.vm import service, vmcore
from tests.vmtest import rootfs, stick
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import OVMF, Machine, Stick
from tests.vmtest.vm import VM, running

CRASH_SECONDS = 400.0
BOOT_SECONDS = 300.0
MEMORY_MIB = 1024
MIB = 1 << 20
# The tolerance when figures of memory are compared.
NOISE = 24 * MIB

RAMOOPS = (
    "memmap=1M$0x30000000", "ramoops.mem_address=0x30000000", "ramoops.mem_size=0x100000",
    "ramoops.console_size=0x10000", "ramoops.kexec_console_size=0x20000",
)  # fmt: skip


# The number of records in QEMU's 64 KiB.
ERST_RECORDS = 7


def armed(vm: VM, kernel: Kernel, configuration: str = "") -> service.KeyPair:
    keys = service.cached_key_pair()
    service.install(vm, keys=keys, configuration=configuration)
    service.kernel_install(vm, "add", kernel.kver)
    assert vm.run(["tinykdump", "status"]).status == 0
    return keys


def meminfo(vm: VM, name: str) -> int:
    lines = vm.run(["cat", "/proc/meminfo"]).text.splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10


def assert_verdict(status: str, token: str) -> None:
    """Check the verdict and its time. It is "last crash" only if the journal is on the disk."""
    failed = rf"(last|older) crash: .*UTC: failed: no stick LABEL={token} within 5 s$"
    assert re.search(failed, status, re.MULTILINE), status


def test_memory_is_reserved_only_while_an_image_is_loaded(
    kernel: Kernel, root: rootfs.Root, tmp_path: Path
) -> None:
    image = stick.make(tmp_path / "stick.img")
    machine = kernel.machine(root, memory_mib=MEMORY_MIB, sticks=(Stick("stick", image.path),))
    assert not [word for word in machine.append if word.startswith("crashkernel=")]
    with running(machine, tmp_path / "vm") as vm:
        assert service.reserved(vm) == 0
        total = meminfo(vm, "MemTotal")
        before = service.available(vm)
        keys = armed(vm, kernel)
        reserved = service.reserved(vm)
        assert 32 * MIB <= reserved <= 88 * MIB
        assert "Crash kernel" in vm.run(["cat", "/proc/iomem"]).text
        with_crash_kernel = service.available(vm)
        vm.run(["tinykdump", "unload"])
        assert service.reserved(vm) == 0
        assert "Crash kernel" not in vm.run(["cat", "/proc/iomem"]).text
        after = service.available(vm)
        assert meminfo(vm, "MemTotal") == total
        assert abs(before - after) < NOISE
        assert abs(after - with_crash_kernel - reserved) < NOISE

        vm.run(["tinykdump", "--load"])
        mark = service.mark()
        service.crash(vm, mark)
        vm.wait_for_reboot(CRASH_SECONDS)
    (dump,) = service.dumps(image, tmp_path / "copy")
    service.restore(dump, tmp_path / "restored", keys.home)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")


def test_an_image_that_does_not_load_reserves_nothing(
    kernel: Kernel, root: rootfs.Root, tmp_path: Path
) -> None:
    """kexec refuses the kernel: the region gets its old size, which is 0 if no image was loaded."""
    machine = kernel.machine(root, memory_mib=MEMORY_MIB)
    with running(machine, tmp_path / "vm") as vm:
        # break_kernel() must not change the kernel image of the armed image.
        vm.shell(f"mv /lib/modules/{kernel.kver}/vmlinuz /boot/vmlinuz-{kernel.kver}")
        armed(vm, kernel)
        before = service.reserved(vm)
        vm.put(b"[crashkernel]\nmargin = 100\n", service.DROP_IN)
        service.break_kernel(vm, kernel.kver)
        for reserved in (before, 0):
            failed = vm.run(["tinykdump", "--load"], check=False)
            (line,) = failed.stderr.decode().splitlines()
            assert line.startswith("tinykdump: kexec failed: ")
            assert "could not be restored" not in line
            assert service.reserved(vm) == reserved
            assert vm.run(["tinykdump", "status"], check=False).status == int(not reserved)
            vm.run(["tinykdump", "unload"])


@pytest.mark.parametrize("backend", ["ramoops", "erst", "efi_pstore"])
def test_without_a_stick_the_log_is_in_pstore_after_the_reboot(
    kernel: Kernel, root: rootfs.Root, tmp_path: Path, backend: str
) -> None:
    """The system kernel's own record of an oops is still there, unchanged."""
    token = new_token()
    with running(with_backend(kernel, root, backend), tmp_path / "vm") as vm:
        load_backend(vm, backend)
        armed(vm, kernel, without_stick(token))
        assert f"crash log:    {backend}\n" in vm.run(["tinykdump", "status"]).text
        oops(vm, token)
        crash_and_boot(vm)
        load_backend(vm, backend)
        log = vm.run(["tinykdump", "log"])
        assert "Linux version" in log.text
        assert f"waiting for the stick LABEL={token}" in log.text
        assert "final action: reboot" in log.stderr.decode()
        assert_verdict(status(vm), token)
        own = vm.shell("cat /sys/fs/pstore/dmesg-*").text
        assert f"oops-{token}" in own
        assert f"LABEL={token}" not in own
        if backend == "ramoops":
            own = vm.shell("cat /sys/fs/pstore/console-ramoops-0").text
            assert f"oops-{token}" in own
            assert "sysrq triggered crash" in own
            assert f"LABEL={token}" not in own


def test_the_log_is_found_after_systemd_has_moved_the_records(
    kernel: Kernel, root: rootfs.Root, tmp_path: Path
) -> None:
    """systemd also loads the backend, and the service arms the machine at boot."""
    token = new_token()
    machine = kernel.machine(root, *rootfs.SYSTEMD, memory_mib=MEMORY_MIB, firmware=OVMF)
    with running(machine, tmp_path / "vm") as vm:
        vm.wait_for_agent(BOOT_SECONDS)
        armed(vm, kernel, without_stick(token))
        vm.run(["systemctl", "enable", "tinykdump"])
        assert "crash log:    efi_pstore\n" in vm.run(["tinykdump", "status"]).text
        crash_and_boot(vm)
        vm.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=BOOT_SECONDS)
        assert vm.run(["ls", "/sys/fs/pstore"]).text == ""
        assert "/kexec-console-efi_pstore-" in vm.shell("ls /var/lib/systemd/pstore/*").text
        log = vm.run(["tinykdump", "log"])
        assert "Linux version" in log.text
        assert f"failed: no stick LABEL={token} within 5 s" in log.text
        armed_again = vm.run(["tinykdump", "status"])
        assert_verdict(armed_again.text, token)


def test_a_kernel_without_the_series_keeps_dmesg_records(root: rootfs.Root, tmp_path: Path) -> None:
    """Debian's kernel: tinykdump uses its dmesg records, and says what is missing."""
    token = new_token()
    machine = root.machine("crashkernel=192M", memory_mib=MEMORY_MIB, erst_kib=64)
    with running(machine, tmp_path / "vm") as vm:
        service.install(vm, keys=service.cached_key_pair(), configuration=without_stick(token))
        service.kernel_install(vm, "add", root.kver)
        assert "crash log:    erst, unless it hangs" in vm.run(["tinykdump", "status"]).text
        crash_and_boot(vm)
        log = vm.run(["tinykdump", "log"])
        assert f"failed: no stick LABEL={token} within 5 s" in log.text
        assert "no CONFIG_PSTORE_KEXEC_CONSOLE" in log.stderr.decode()
        assert_verdict(status(vm), token)


def test_a_full_backend_does_not_prevent_the_dump(
    kernel: Kernel, root: rootfs.Root, tmp_path: Path
) -> None:
    """It is full of other records, one of them of a type that the kernel does not know."""
    image = stick.make(tmp_path / "stick.img")
    machine = with_backend(kernel, root, "erst", sticks=(Stick("stick", image.path),))
    store = tmp_path / "vm/erst.img"
    with running(machine, tmp_path / "vm") as vm:
        for _ in range(ERST_RECORDS + 1):
            oops(vm, "full")
        full = erst.records(store)
        assert len(full) == ERST_RECORDS
        erst.change_section(store, full[0], uuid.uuid4())
        keys = armed(vm, kernel)
        # After an oops, a panic does not name the process.
        token = new_token()
        vm.shell(f"echo {token} >/dev/kmsg")
        service.crash(vm, service.mark())
        vm.wait_for_reboot(CRASH_SECONDS)
        said = vm.console.rpartition("Linux version")[2]
    assert "giving up on the log of this crash kernel: erst cannot store it" in said
    assert "saved as tinykdump/" in said
    for complaint in ("WARNING:", "BUG:", "Oops:"):
        assert complaint not in said
    assert {record.id for record in erst.records(store)} == {record.id for record in full}
    (dump,) = service.dumps(image, tmp_path / "copy")
    assert dump.complete
    service.restore(dump, tmp_path / "restored", keys.home)
    assert token in vmcore.log(tmp_path / "restored/vmcore")


def new_token() -> str:
    return f"token-{secrets.token_hex(8)}"


def without_stick(token: str) -> str:
    """A configuration with a stick that does not exist; the crash kernel logs its name."""
    return f"[dump]\nwait = 5\ntarget = LABEL={token}\n"


def with_backend(kernel: Kernel, root: rootfs.Root, backend: str, **changes: Any) -> Machine:
    changes |= {"memory_mib": MEMORY_MIB}
    match backend:
        case "erst":
            return kernel.machine(root, erst_kib=64, **changes)
        case "efi_pstore":
            return kernel.machine(root, firmware=OVMF, **changes)
    return kernel.machine(root, *RAMOOPS, **changes)


def load_backend(vm: VM, backend: str) -> None:
    if backend != "erst":  # built in
        vm.run(["modprobe", backend])


def oops(vm: VM, token: str) -> None:
    """Cause an oops, which the kernel survives and records in pstore."""
    vm.shell(f"modprobe lkdtm; echo oops-{token} >/dev/kmsg")
    vm.shell("echo BUG >/sys/kernel/debug/provoke-crash/DIRECT", check=False)


def crash_and_boot(vm: VM) -> None:
    vm.run(["sync"])  # keeps the installation over the reboot
    service.crash(vm, service.mark())
    vm.wait_for_reboot(CRASH_SECONDS)
    vm.wait_for_agent(BOOT_SECONDS)


def status(vm: VM) -> str:
    """The output of `tinykdump status`, also of a machine that is not armed."""
    return vm.run(["tinykdump", "status"], check=False).text
