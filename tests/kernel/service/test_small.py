# SPDX-License-Identifier: GPL-2.0-or-later
"""The small crash kernel takes the dumps of other kernels."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel.build import Request
from tests.vm import service, vmcore
from tests.vmtest import kernels, stick
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import Machine, Stick
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import VM, running

MEMORY_MIB = 1024
CRASH_SECONDS = 1500.0  # beside builds
# What the small kernel is for: a third of what an installed kernel needs.
RESERVED_MIB = 36


@pytest.fixture(scope="module")
def small(build_kernel: Callable[[Request], Kernel]) -> Kernel:
    return build_kernel(kernels.SMALL)


@pytest.fixture
def image(tmp_path: Path) -> stick.Image:
    return stick.make(tmp_path / "stick.img")


@contextmanager
def armed(machine: Machine, small: Kernel, kver: str, place: Path) -> Iterator[VM]:
    """A machine with tinykdump and the small kernel, ready to crash."""
    with running(machine, place / "vm") as vm:
        vm.wait_for_agent()
        configuration = "[image]\nkernel = small\n"
        service.install(vm, keys=service.cached_key_pair(), configuration=configuration)
        service.install_small(vm, small.directory)
        said = service.kernel_install(vm, "add", kver).stderr.decode()
        assert f"built the crash image of {small.kver}: " in said
        status = json.loads(vm.run(["tinykdump", "status", "--json"]).text)
        assert (status["running"], status["loaded"]) == (kver, small.kver)
        assert not [each for each in status["problems"] if "has no driver for" in each]
        yield vm


def check(vm: VM, image: stick.Image, mark: str, place: Path) -> None:
    """Wait for the dump, restore it, and look for the mark in it."""
    vm.wait_for_reboot(CRASH_SECONDS)
    console = vm.console
    vm.quit()
    (dump,) = service.dumps(image, place / "copy")
    assert dump.complete
    assert sorted(path.name for path in dump.directory.iterdir()) == [
        "SHA256SUMS", "dmesg.txt.gpg.000", "vmcore.flat.gpg.000",
    ]  # fmt: skip
    service.restore(dump, place / "restored", service.cached_key_pair().home)
    core = place / "restored/vmcore"
    assert mark in vmcore.log(core)
    assert vmcore.has_process(core, mark, memory_mib=MEMORY_MIB)
    print(service.stages(console))


@pytest.mark.parametrize("call", ["kexec_file_load", "kexec_load"])
def test_a_stock_kernel_with_a_static_reservation(
    small: Kernel, root: Root, image: stick.Image, tmp_path: Path, call: str
) -> None:
    """tinykdump returns what the small kernel does not need. A second kernel shares its image."""
    machine = root.machine("crashkernel=64M", memory_mib=MEMORY_MIB, reboots=False,
                           sticks=(Stick("stick", image.path),))  # fmt: skip
    with armed(machine, small, root.kver, tmp_path) as vm:
        made = service.manifest(vm, small.kver)
        assert (made["modules"], made["apart"]) == ([], True)
        assert service.reserved(vm) <= RESERVED_MIB << 20
        again = service.kernel_install(vm, "add", root.kver).stderr.decode()
        assert f"kept the crash image of {small.kver}: " in again
        assert vm.run(["ls", "/var/lib/tinykdump/images"]).text == f"{small.kver}\n"
        if call == "kexec_load":
            name = f"/var/lib/tinykdump/images/{small.kver}/initramfs-{made['sha256'][:16]}.img"
            vm.run(["kexec", "--load-panic", "--kexec-syscall", made["kernel"],
                    f"--initrd={name}", f"--append={made['cmdline']}"])  # fmt: skip
        mark = service.mark()
        service.crash(vm, mark)
        check(vm, image, mark, tmp_path)


def test_our_kernel_whose_region_grows(
    small: Kernel, kernel: Kernel, root: Root, image: stick.Image, tmp_path: Path
) -> None:
    machine = kernel.machine(root, memory_mib=MEMORY_MIB, reboots=False,
                             sticks=(Stick("stick", image.path),))  # fmt: skip
    with armed(machine, small, kernel.kver, tmp_path) as vm:
        assert 0 < service.reserved(vm) <= RESERVED_MIB << 20
        mark = service.mark()
        service.crash(vm, mark)
        check(vm, image, mark, tmp_path)
