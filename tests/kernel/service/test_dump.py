# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps of a machine whose region has grown, read by drgn with debugging information."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import drgn
import pytest
from drgn.helpers.linux.pid import for_each_task

from tests.vm import service
from tests.vmtest import rootfs, stick
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import EHCI, XHCI, Controller, Machine, Stick
from tests.vmtest.vm import VM, running

CRASH_SECONDS = 600.0
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """A machine, and the system call that loads the crash kernel: -s kexec_file_load, -c
    kexec_load."""

    controller: Controller = XHCI
    memory_mib: int = 1024
    call: str = "-s"
    append: tuple[str, ...] = ()
    older: bool = False  # the crash kernel is that of the distribution

    def machine(self, kernel: Kernel, image: stick.Image) -> Machine:
        return kernel.machine(
            rootfs.build(),
            *self.append,
            memory_mib=self.memory_mib,
            controllers=(self.controller,),
            sticks=(Stick("stick", image.path, bus=self.controller.id),),
        )


CASES = {
    "kexec_load": Case(call="-c"),
    "without an area": Case(append=("crashkernel=0,dynamic",)),
    "32 bits of DMA": Case(controller=EHCI, memory_mib=6144),
    # As after the installation of a kernel, before the reboot; vmcoreinfo has other names.
    "an older crash kernel": Case(older=True),
}


def arm(vm: VM, kver: str) -> service.KeyPair:
    """Arm a machine whose region is too small, so that it is replaced by a larger one."""
    keys = service.cached_key_pair()
    vm.shell(f"echo {16 * MIB} >/sys/kernel/kexec_crash_size")
    service.install(vm, keys=keys)
    service.kernel_install(vm, "add", kver)
    assert service.reserved(vm) > 32 * MIB
    return keys


def load_by(vm: VM, kver: str, call: str) -> None:
    """Load the service's image again, with the system call -s or -c."""
    manifest = service.manifest(vm, kver)
    image = f"/var/lib/tinykdump/images/{kver}/initramfs-{manifest['sha256'][:16]}.img"
    vm.run(["kexec", "-p", "-u"])
    vm.run(["kexec", "-p", call, manifest["kernel"], f"--initrd={image}",
            f"--append={manifest['cmdline']}"])  # fmt: skip
    assert json.loads(vm.run(["tinykdump", "status", "--json"]).text)["armed"]


def region(vm: VM) -> tuple[int, int]:
    """The addresses of the first and the last byte of the region, from /proc/iomem."""
    text = vm.run(["cat", "/proc/iomem"]).text
    ((start, end),) = re.findall(r"^ *([0-9a-f]+)-([0-9a-f]+) : Crash kernel$", text, re.MULTILINE)
    return int(start, 16), int(end, 16)


def in_dump(program: drgn.Program, address: int) -> bool:
    """Whether the page at that physical address was saved."""
    try:
        program.read(address, 1, physical=True)
    except drgn.FaultError:
        return False
    return True


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_drgn_reads_the_dump_and_the_region_is_not_in_it(
    kernel: Kernel, tmp_path: Path, case: Case
) -> None:
    image = stick.make(tmp_path / "stick.img", size_mib=1024)
    machine = case.machine(kernel, image)
    mark = service.mark()
    with running(machine, tmp_path / "vm") as vm:
        kver = kernel.kver
        if case.older:
            kver = rootfs.build().kver
            # The mount on that directory hides them.
            vm.shell("mount --bind / /mnt; mount --bind /mnt/usr/lib/modules /usr/lib/modules")
        keys = arm(vm, kver)
        load_by(vm, kver, case.call)
        start, end = region(vm)
        service.crash(vm, mark)
        vm.wait_for_reboot(CRASH_SECONDS)
    (dump,) = service.dumps(image, tmp_path / "copy")
    assert dump.complete
    service.restore(dump, tmp_path / "restored", keys.home)

    core = tmp_path / "restored/vmcore"
    said = service.report(core, "--symbols", str(kernel.directory / "vmlinux"))
    assert f"Crashing task: {mark} (PID " in said
    assert re.search(r"^    #[0-9]+ +sysrq_handle_crash at .*sysrq\.c:[0-9]+$", said, re.MULTILINE)
    assert re.search(rf"^    CPU 0: {mark} \([0-9]+\) runs", said, re.MULTILINE)
    assert re.search(r"^Most memory, of [0-9]+ tasks$", said, re.MULTILINE)
    assert "from the kernel's counters" in said
    assert "\nNot shown\n" not in said, said.partition("\nNot shown\n")[2]

    program = drgn.Program()
    program.set_core_dump(tmp_path / "restored/vmcore")
    program.load_debug_info([kernel.directory / "vmlinux"])
    resource = program["crashk_res"]
    assert (resource.start.value_(), resource.end.value_()) == (start, end)
    assert end < 1 << 32
    assert mark.encode() in {task.comm.string_() for task in for_each_task(program)}
    # They are in compound pages, whose second pages an old makedumpfile leaves out.
    loaded = {module.name for module, _ in program.loaded_modules()}
    assert {"virtio_blk", "ext4"} <= loaded
    assert not any(in_dump(program, address) for address in range(start, end, 4096))
