# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump-harvest.service: after a crash, the boot restores the dump from the stick."""

import hashlib
from pathlib import Path

from tests.vm import service
from tests.vmtest import stick
from tests.vmtest.machine import Stick
from tests.vmtest.rootfs import SYSTEMD, Root
from tests.vmtest.vm import VM, running

LOG = "journalctl --boot --unit=tinykdump-harvest --output=cat"


def settled(vm: VM) -> None:
    vm.wait_for_agent()
    vm.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=600)


def test_the_boot_after_a_crash_restores_the_dump(root: Root, tmp_path: Path) -> None:
    """With the machine's own key, once, and without a change to the stick."""
    image = stick.make(tmp_path / "stick.img", size_mib=1024)
    machine = root.machine("crashkernel=192M", init=SYSTEMD, memory_mib=512,
                           sticks=(Stick("stick", image.path),))  # fmt: skip
    with running(machine, tmp_path / "vm") as vm:
        settled(vm)
        service.install(vm)
        vm.run(["systemctl", "enable", "tinykdump", "tinykdump-harvest"])
        vm.run(["tinykdump", "-l"])
        vm.run(["sync"])
        mark = service.mark()
        service.crash(vm, mark)
        vm.wait_for_console("dump saved", service.CRASH_SECONDS)
        before = hashlib.sha256(image.path.read_bytes()).digest()
        vm.wait_for_reboot(service.CRASH_SECONDS)
        settled(vm)
        said = vm.shell(LOG).text
        (target,) = vm.shell("ls -d /var/crash/*").text.split()
        assert f"restored {target}" in said
        assert vm.shell(f"ls {target}").text.split() == ["vmcore", "vmcore-dmesg.txt"]
        assert mark in vm.shell(f"cat {target}/vmcore-dmesg.txt").text
        memory = vm.shell(f"makedumpfile --dump-dmesg {target}/vmcore /tmp/log && cat /tmp/log")
        assert mark in memory.text
        assert hashlib.sha256(image.path.read_bytes()).digest() == before
        assert "sda" not in vm.shell("cat /proc/self/mounts").text

        vm.run(["systemctl", "restart", "tinykdump-harvest"], timeout=300)
        assert vm.shell(LOG).text.count("restored ") == 1
        vm.shell("test $(systemctl is-active tinykdump) = active")
