# SPDX-License-Identifier: GPL-2.0-or-later
"""The small crash kernel takes the dumps of other kernels."""

import inspect
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from kernel.build import Request
from tests.rpm import repository
from tests.vm import service, vmcore
from tests.vmtest import kernels, secureboot, snapshot, stick
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import EHCI, X86_64, XHCI, Controller, Machine, Stick
from tests.vmtest.rootfs import Recipe, Root
from tests.vmtest.vm import VM, running
from tinykdump.dump import TOP, is_complete
from tinykdump.kernels import SMALL_IMAGE

MEMORY_MIB = 1024
CRASH_SECONDS = 1500.0  # beside builds
# A machine that is mostly empty: full-speed controllers take a second for each MiB of the dump.
LITTLE_MIB = 512
CONTROLLERS = (XHCI, EHCI, Controller("ohci", "pci-ohci"), Controller("uhci", "ich9-usb-uhci1"))
# A kernel that is installed and removed.
OTHER = "6.99.0-other"
# Free memory is zero, so it is not in the dump.
EMPTY = "init_on_free=1"
# What the small kernel is for: a third of what an installed kernel needs.
RESERVED_MIB = 34


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


def check(vm: VM, image: stick.Image, mark: str, place: Path, end_mib: int = MEMORY_MIB) -> str:
    """Wait for the dump, restore it, and look for the mark in it; returns the console."""
    vm.wait_for_reboot(CRASH_SECONDS)
    console = vm.console
    vm.quit()
    (dump,) = service.dumps(image, place / "copy")
    examine(dump, mark, place, end_mib)
    print(service.stages(console))
    return console


def examine(dump: service.Dump, mark: str, place: Path, end_mib: int = MEMORY_MIB) -> None:
    """Restore a dump, which is complete, and look for the mark in it."""
    assert dump.complete
    assert sorted(path.name for path in dump.directory.iterdir()) == [
        "SHA256SUMS", "STAGES", "dmesg.txt.gpg.000", "vmcore.flat.gpg.000",
    ]  # fmt: skip
    service.restore(dump, place / "restored", service.cached_key_pair().home)
    core = place / "restored/vmcore"
    assert mark in vmcore.log(core)
    assert vmcore.has_process(core, mark, memory_mib=end_mib)


@pytest.mark.parametrize("call", ["kexec_file_load", "kexec_load"])
def test_a_stock_kernel_with_a_static_reservation(
    small: Kernel, root: Root, image: stick.Image, tmp_path: Path, call: str
) -> None:
    """tinykdump returns what the small kernel does not need. Other kernels share its image."""
    machine = root.machine("crashkernel=64M", memory_mib=MEMORY_MIB, reboots=False,
                           sticks=(Stick("stick", image.path),))  # fmt: skip
    with armed(machine, small, root.kver, tmp_path) as vm:
        made = service.manifest(vm, small.kver)
        assert (made["modules"], made["apart"]) == ([], True)
        assert service.reserved(vm) <= RESERVED_MIB << 20
        # A kernel update, and the removal of what it brought.
        (image_of_it,) = service.kernel_images(vm, root.kver)
        vm.run(["mkdir", "-p", f"/lib/modules/{OTHER}/kernel"])
        again = vm.run(["kernel-install", "add", OTHER, image_of_it]).stderr.decode()
        assert f"kept the crash image of {small.kver}: " in again
        vm.run(["kernel-install", "remove", OTHER])
        assert vm.run(["ls", "/var/lib/tinykdump/images"]).text == f"{small.kver}\n"
        assert service.manifest(vm, small.kver) == made
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


def test_a_newer_kernel_of_a_distribution(
    small: Kernel, build_root: Callable[[Recipe], Root], image: stick.Image, tmp_path: Path
) -> None:
    """Debian's next kernel, with the makedumpfile that comes with it."""
    root = build_root(repository.RPM6)
    machine = root.machine("crashkernel=64M", EMPTY, memory_mib=MEMORY_MIB, reboots=False,
                           sticks=(Stick("stick", image.path),))  # fmt: skip
    with armed(machine, small, root.kver, tmp_path) as vm:
        assert service.reserved(vm) <= RESERVED_MIB << 20
        mark = service.mark()
        service.crash(vm, mark)
        check(vm, image, mark, tmp_path)


def test_a_large_machine_with_an_iommu(
    small: Kernel, root: Root, image: stick.Image, tmp_path: Path
) -> None:
    """4 GiB, 4 processors, 5-level page tables; DMA and interrupts are remapped at the crash."""
    end_mib = 6144  # of its memory, half of which is above 4 GiB
    machine = root.machine(
        "crashkernel=64M", "intel_iommu=on", EMPTY, memory_mib=4096, cpus=4,
        cpu=f"{X86_64.cpu},la57=on", reboots=False, sticks=(Stick("stick", image.path),),
        devices=("intel-iommu,intremap=on,aw-bits=48",),
    )  # fmt: skip
    with armed(machine, small, root.kver, tmp_path) as vm:
        assert service.reserved(vm) <= RESERVED_MIB << 20
        log = vm.run(["dmesg"]).text
        assert "DMAR: Intel(R) Virtualization Technology for Directed I/O" in log
        assert "DMAR-IR: Enabled IRQ remapping" in log
        mark = service.mark()
        service.crash(vm, mark)
        console = check(vm, image, mark, tmp_path, end_mib)
    _, _, after = console.partition("Kernel panic")
    assert "DMAR: Copied translation tables from previous kernel for dmar0" in after
    assert "DMAR-IR: Copied IR table for dmar0 from previous kernel" in after
    with (tmp_path / "restored/vmcore").open("rb") as core:
        assert b"NUMBER(pgtable_l5_enabled)=1" in core.read(1 << 20)


def test_the_iommu_of_amd(small: Kernel, root: Root, image: stick.Image, tmp_path: Path) -> None:
    machine = root.machine("crashkernel=64M", EMPTY, memory_mib=MEMORY_MIB, reboots=False,
                           sticks=(Stick("stick", image.path),),
                           devices=("amd-iommu,intremap=on",))  # fmt: skip
    with armed(machine, small, root.kver, tmp_path) as vm:
        assert "AMD-Vi: Interrupt remapping enabled" in vm.run(["dmesg"]).text
        mark = service.mark()
        service.crash(vm, mark)
        console = check(vm, image, mark, tmp_path)
    _, _, after = console.partition("Kernel panic")
    assert "AMD-Vi: Reused DEV table from previous kernel" in after


HUGE_MIB = 64 << 10


@pytest.mark.long
def test_64_gib(
    small: Kernel, build_root: Callable[[Recipe], Root], image: stick.Image, tmp_path: Path
) -> None:
    """QEMU takes only what the guest writes: 1 GiB of page descriptors and its programs.

    So free memory must not be cleared, and makedumpfile has to be one that leaves it out.
    """
    root = build_root(repository.RPM6)
    machine = root.machine(
        "crashkernel=64M", memory_mib=HUGE_MIB, reboots=False, sticks=(Stick("stick", image.path),),
        arguments=("-object", f"memory-backend-ram,id=all,size={HUGE_MIB}M,reserve=off",
                   "-machine", "memory-backend=all"),
    )  # fmt: skip
    with armed(machine, small, root.kver, tmp_path) as vm:
        print(f"reserved: {service.reserved(vm) >> 20} MiB")
        assert service.reserved(vm) <= 2 * RESERVED_MIB << 20
        mark = service.mark()
        service.crash(vm, mark)
        vm.wait_for_reboot(4 * CRASH_SECONDS)
        print(service.stages(vm.console))
        vm.quit()
    (dump,) = service.dumps(image, tmp_path / "copy")
    assert dump.complete
    service.restore(dump, tmp_path / "restored", service.cached_key_pair().home)
    core = tmp_path / "restored/vmcore"
    assert mark in vmcore.log(core)
    assert vmcore.end_of_memory(core) > HUGE_MIB << 20


@pytest.fixture(scope="module")
def little(small: Kernel, root: Root) -> tuple[Machine, Path]:
    """A small machine with all kinds of controllers, armed, without a stick; and its snapshot."""
    machine = root.machine("crashkernel=64M", EMPTY, memory_mib=LITTLE_MIB, reboots=False,
                           controllers=CONTROLLERS)  # fmt: skip
    configuration = "[image]\nkernel = small\n[dump]\nfilesystems = vfat exfat ext4\n"

    def arm(vm: VM) -> None:
        service.install(vm, keys=service.cached_key_pair(), configuration=configuration)
        service.install_small(vm, small.directory)
        service.kernel_install(vm, "add", root.kver)
        vm.shell("sync; echo 3 >/proc/sys/vm/drop_caches")

    inputs = (service.archive(), small.directory.name, configuration, inspect.getsource(arm))
    return machine, snapshot.armed(machine, arm, *inputs)


def on(bus: str, driver: Literal["usb-storage", "usb-uas"] = "usb-storage") -> Stick:
    """A stick at that controller; its image comes later."""
    return Stick("stick", Path(), bus=bus, driver=driver)


@pytest.mark.parametrize(
    ("plugged", "filesystem", "says"),
    [
        (on("xhci", "usb-uas"), "ext4", "scsi host0: uas"),
        (on("ehci"), "exfat", "high-speed USB device number 2 using ehci-pci"),
        (on("ohci"), "vfat", "full-speed USB device number 2 using ohci-pci"),
        (on("uhci"), "vfat", "full-speed USB device number 2 using uhci_hcd"),
    ],
    ids=["uas-ext4", "ehci-exfat", "ohci-fat", "uhci-fat"],
)
def test_sticks_and_controllers(
    little: tuple[Machine, Path],
    tmp_path: Path,
    plugged: Stick,
    filesystem: stick.FileSystem,
    says: str,
) -> None:
    """One image drives them all, whatever the machine had when it was built."""
    machine, saved = little
    image = stick.make(tmp_path / "stick.img", filesystem=filesystem)
    with snapshot.resumed(machine, saved, tmp_path / "vm") as vm:
        vm.plug(replace(plugged, image=image.path))
        mark = service.mark()
        service.crash(vm, mark)
        if filesystem != "exfat":
            console = check(vm, image, mark, tmp_path, LITTLE_MIB)
        else:
            vm.wait_for_reboot(CRASH_SECONDS)
            console = vm.console
            vm.quit()
            examine(copied(little, image, tmp_path), mark, tmp_path, LITTLE_MIB)
    _, _, after = console.partition("Kernel panic")
    assert says in after


def copied(little: tuple[Machine, Path], image: stick.Image, place: Path) -> service.Dump:
    """The only dump on a stick with exFAT, which only a guest can read."""
    with snapshot.resumed(*little, place / "reader") as vm:
        vm.plug(Stick("stick", image.path))
        vm.shell("modprobe -a xhci_pci usb_storage sd_mod exfat;"
                 "until [ -e /sys/class/block/sda ]; do sleep 0.2; done;"
                 "mount -o ro /dev/sda /mnt; tar -cf /root/stick.tar -C /mnt .")  # fmt: skip
        content = vm.get("/root/stick.tar")
    copy = place / "copy"
    copy.mkdir()
    subprocess.run(["tar", "-x", "--no-same-owner", "-C", copy], input=content, check=True)
    (directory,) = copy.glob(f"{TOP}/*/*")
    return service.Dump(directory, is_complete(directory.name))


def test_secure_boot(small: Kernel, root: Root, image: stick.Image, tmp_path: Path) -> None:
    """The firmware trusts one key: a small kernel without its signature is not loaded."""
    made = secureboot.make(root.kernel)
    machine = root.machine("crashkernel=64M", EMPTY, kernel=made.signed, firmware=made.firmware,
                           memory_mib=MEMORY_MIB, reboots=False,
                           sticks=(Stick("stick", image.path),))  # fmt: skip
    signed = tmp_path / "signed"
    made.sign(small.directory / "vmlinuz", signed)
    with running(machine, tmp_path / "vm") as vm:
        vm.wait_for_agent()
        assert "Kernel is locked down from EFI Secure Boot" in vm.console
        service.install(
            vm, keys=service.cached_key_pair(), configuration="[image]\nkernel = small\n"
        )
        service.install_small(vm, small.directory)
        done = vm.run(["tinykdump", "--load"], check=False)
        assert done.status == 1
        assert "with Secure Boot the kernel must be signed" in done.stderr.decode()
        vm.put(signed, str(SMALL_IMAGE))
        vm.run(["tinykdump", "--load"])
        assert service.reserved(vm) <= RESERVED_MIB << 20
        mark = service.mark()
        service.crash(vm, mark)
        check(vm, image, mark, tmp_path)
