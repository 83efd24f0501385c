# SPDX-License-Identifier: GPL-2.0-or-later
"""The service on the kernel with both series: no parameter, and a log when no stick was there."""

import secrets
from pathlib import Path

import pytest

from tests.vm import kernels, rootfs, service, stick, vmcore
from tests.vm.kernels import Kernel
from tests.vm.machine import Machine, Stick
from tests.vm.vm import VM, running

CRASH_SECONDS = 400.0
MEMORY_MIB = 1024
MIB = 1 << 20
# How far apart two figures of memory may be that should be the same.
NOISE = 24 * MIB

RAMOOPS = (
    "memmap=1M$0x30000000", "ramoops.mem_address=0x30000000", "ramoops.mem_size=0x100000",
    "ramoops.console_size=0x10000", "ramoops.kexec_console_size=0x20000",
)  # fmt: skip


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return kernels.patched()


@pytest.fixture(scope="module")
def root() -> rootfs.Root:
    return rootfs.build()


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


def test_nothing_is_reserved_until_it_is_used(
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

        vm.run(["tinykdump", "--load"], timeout=300)
        mark = service.mark()
        service.crash(vm, mark)
        vm.wait_for_reboot(CRASH_SECONDS)
    (dump,) = service.dumps(image, tmp_path / "copy")
    service.restore(dump, tmp_path / "restored", keys.home)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")


@pytest.mark.parametrize("backend", ["ramoops", "erst"])
def test_without_a_stick_the_log_is_there_after_the_reboot(
    kernel: Kernel, root: rootfs.Root, tmp_path: Path, backend: str
) -> None:
    """A script logs a token; the stick that is waited for never comes."""
    token = f"token-{secrets.token_hex(8)}"
    machine = with_backend(kernel, root, backend)
    with running(machine, tmp_path / "vm") as vm:
        if backend == "ramoops":
            vm.run(["modprobe", "ramoops"])
        armed(vm, kernel, f"[dump]\nwait = 5\ntarget = LABEL={token}\n")
        vm.run(["sync"])  # what was installed is to be there after the reboot
        service.crash(vm, service.mark())
        vm.wait_for_reboot(CRASH_SECONDS)
        vm.wait_for_agent(300)
        if backend == "ramoops":
            vm.run(["modprobe", "ramoops"])
        log = vm.run(["tinykdump", "log"])
        assert f"failed: no stick LABEL={token} within 5 s" in log.text
        assert "final action: reboot" in log.stderr.decode()
        status = vm.run(["tinykdump", "status"], check=False)
        assert "last crash:   dump failed" in status.text


def with_backend(kernel: Kernel, root: rootfs.Root, backend: str) -> Machine:
    if backend == "erst":
        return kernel.machine(root, memory_mib=MEMORY_MIB, erst_kib=64)
    return kernel.machine(root, *RAMOOPS, memory_mib=MEMORY_MIB)
