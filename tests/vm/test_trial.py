# SPDX-License-Identifier: GPL-2.0-or-later
"""`tinykdump test`: a crash on purpose, and what status says of it after the reboot."""

import json
import re
import time
from pathlib import Path
from typing import Any

from tests.vm import service
from tests.vmtest import stick
from tests.vmtest.machine import Stick
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import VM, running

MODULES = "modprobe -a xhci_pci usb_storage uas sd_mod vfat nls_cp437 nls_ascii"


def booted(vm: VM) -> None:
    vm.wait_for_agent()
    vm.shell(MODULES)


def wait_for_stick(vm: VM) -> None:
    vm.shell("until [ -e /sys/class/block/sda ]; do sleep 0.2; done")


def crash(vm: VM) -> None:
    """Start the test, and wait until the crash kernel runs."""
    said = r"tinykdump: \[.* s\] crash kernel .* is up"
    crashes = len(re.findall(said, vm.console))
    vm.start(["tinykdump", "test", "--yes"])
    deadline = time.monotonic() + service.CRASH_SECONDS
    while len(re.findall(said, vm.console)) == crashes:
        assert time.monotonic() < deadline, "no crash kernel has started"
        time.sleep(0.1)


def status(vm: VM) -> dict[str, Any]:
    return dict(json.loads(vm.run(["tinykdump", "status", "--json"], check=False).text))


def test_a_crash_on_purpose(root: Root, tmp_path: Path) -> None:
    """It comes out on the stick, then on none because the stick is pulled; refused without one."""
    image = stick.make(tmp_path / "stick.img", size_mib=1024)
    machine = root.machine("crashkernel=192M", memory_mib=512,
                           sticks=(Stick("stick", image.path),))  # fmt: skip
    with running(machine, tmp_path / "vm") as vm:
        booted(vm)
        service.install(vm)
        vm.put(b"[dump]\nwait = 5\n", service.DROP_IN)
        wait_for_stick(vm)
        refused = vm.run(["tinykdump", "test", "--yes"], check=False)
        assert refused.stderr.decode() == (
            "tinykdump: this machine is not armed (tinykdump status says what to do)\n"
        )
        vm.run(["tinykdump", "-l"], timeout=300)
        refused = vm.run(["tinykdump", "test"], check=False)
        assert "nobody can be asked: there is no terminal (add --yes)" in refused.stderr.decode()
        assert status(vm)["test"] is None

        crash(vm)
        vm.wait_for_reboot(service.CRASH_SECONDS)
        booted(vm)
        wait_for_stick(vm)
        first = status(vm)
        (saved,) = (name for name in vm.shell(
            "mount -o ro /dev/sda /mnt && cd /mnt && ls -d tinykdump/*/*; cd /; umount /mnt"
        ).text.split())  # fmt: skip
        assert first["test"]["came_out"] is True
        assert first["test"]["result"] == f"saved as {saved}"
        assert 3 <= first["test"]["seconds"] < service.CRASH_SECONDS
        assert not [each for each in first["problems"] if "test" in each]
        text = vm.run(["tinykdump", "status"]).text
        assert f" s after the crash: saved as {saved}\n" in text.split("last test:")[1]
        assert "  complete, test  " in vm.run(["tinykdump", "list", "--mount"]).text

        vm.run(["tinykdump", "-l"], timeout=300)
        vm.shell("echo 0 >/proc/sys/kernel/sysrq")
        crash(vm)
        vm.unplug("stick")
        vm.wait_for_reboot(service.CRASH_SECONDS)
        booted(vm)
        unknown = status(vm)
        assert unknown["test"]["came_out"] is None
        assert unknown["test"]["id"] != first["test"]["id"]
        assert [each for each in unknown["problems"] if each.endswith(
            " came out is not known (plug in its stick and run tinykdump status)")]  # fmt: skip
        vm.run(["tinykdump", "-l"], timeout=300)
        refused = vm.run(["tinykdump", "test", "--yes"], check=False)
        assert "no stick with LABEL=TINYKDUMP is plugged in (" in refused.stderr.decode()

        vm.plug("stick")
        wait_for_stick(vm)
        failed = status(vm)
        assert failed["test"] == unknown["test"] | {
            "came_out": False, "result": "no dump on the stick has its id"
        }  # fmt: skip
        check = vm.run(["tinykdump", "status", "--check"], check=False)
        assert check.status == 1
        assert "sda" not in vm.shell("cat /proc/self/mounts").text
