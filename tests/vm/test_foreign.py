# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with an arm64 processor: Debian's kernel panics, and the dump is restored here."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vm import service, vmcore
from tests.vmtest import stick
from tests.vmtest.machine import XHCI, Machine, Stick
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import running
from tinykdump.image.makedumpfile import KEEPS_ALL

pytestmark = pytest.mark.long

# The modules for the stick's controller, protocol and file system.
NEEDED_MODULES = [
    "usb_common", "usbcore", "xhci_hcd", "xhci_pci", "scsi_common", "scsi_mod", "usb_storage",
    "uas", "sd_mod", "fat", "vfat", "nls_cp437", "nls_ascii", "exfat",
]  # fmt: skip
# Where the memory of QEMU's virt begins.
FIRST = 1 << 30
# Little, because Debian 13's makedumpfile cannot read its kernel: all of it is dumped.
MEMORY_MIB = 384
# The processor is emulated, and encrypts two or three megabytes a second.
CRASH_SECONDS = 2400.0


# The stick's controller gets its power from a regulator, as on many boards. The device tree names
# PCI devices by their slots (IEEE Std 1275, PCI Bus Binding).
SLOT = 8
SUPPLY = """
/ {
    power: regulator-usb { compatible = "regulator-fixed"; regulator-name = "usb"; };
};
&{/pcie@10000000} {
    usb@8,0 { reg = <0x4000 0 0 0 0>; vbus-supply = <&power>; };
};
"""
# The module of the regulator's driver.
REGULATOR = "fixed"
# A kernel stops waiting for such a driver after ten seconds. Boards cannot do without, so this one
# waits forever.
WAITS = "deferred_probe_timeout=-1"


@pytest.fixture
def machine(foreign_root: Root, tmp_path: Path) -> Machine:
    image = stick.make(tmp_path / "stick.img")
    controller = replace(XHCI, properties=(*XHCI.properties, ("addr", f"{SLOT:x}")))
    bare = foreign_root.machine(
        "crashkernel=96M",
        WAITS,
        memory_mib=MEMORY_MIB,
        controllers=(controller,),
        sticks=(Stick("stick", image.path),),
    )
    return replace(bare, arguments=("-dtb", str(device_tree(bare, SUPPLY, tmp_path))))


def device_tree(machine: Machine, more: str, directory: Path) -> Path:
    """The device tree that QEMU makes for a machine, with more in it."""
    qemus, source = directory / "qemu.dtb", directory / "tree.dts"
    platform = machine.platform
    qemu = [platform.program, "-machine", f"{platform.board},dumpdtb={qemus}", "-display", "none"]
    subprocess.run([*qemu, "-cpu", platform.cpu], check=True, capture_output=True)
    subprocess.run(["dtc", "-q", "-o", source, qemus], check=True)
    source.write_text(source.read_text() + more)
    subprocess.run(["dtc", "-q", "-o", directory / "tree.dtb", source], check=True)
    return directory / "tree.dtb"


def test_a_dump_of_arm64_is_saved_and_restored(
    machine: Machine,
    foreign_root: Root,
    keys: service.KeyPair,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    kver, mark = foreign_root.kver, service.mark()
    with running(machine, tmp_path / "vm") as vm:
        service.install(vm, keys=keys)
        vm.run(["modprobe", "-a", REGULATOR, "xhci_pci"])  # as udev would
        service.kernel_install(vm, "add", kver)
        manifest = service.manifest(vm, kver)
        assert {REGULATOR, *NEEDED_MODULES} <= set(manifest["modules"])
        assert "nr_cpus=1" in manifest["cmdline"].split()
        assert service.reserved(vm) < 96 << 20
        (note,) = json.loads(vm.run(["tinykdump", "status", "--json"], check=False).text)["notes"]
        assert note == KEEPS_ALL.note
        service.crash(vm, mark)
        vm.wait_for_reboot(CRASH_SECONDS)
        vm.quit()

    (dump,) = service.dumps(stick.Image(machine.stick("stick").image, "vfat"), tmp_path / "stick")
    assert dump.complete
    # The log is only in the vmcore: makedumpfile could not read it in the crash kernel.
    with pytest.raises(subprocess.CalledProcessError):
        service.restore(dump, tmp_path / "restored", keys.home)
    assert "cannot restore vmcore-dmesg.txt: " in capfd.readouterr().err
    core = tmp_path / "restored/vmcore"
    assert [*core.parent.iterdir()] == [core]
    assert vmcore.has_process(core, mark, memory_mib=MEMORY_MIB, first=FIRST)
    said = service.report(core)  # without symbols
    assert said.startswith("panic:    sysrq triggered crash\n")
    assert f"Crashing task: {mark} (PID " in said
