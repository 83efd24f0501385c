# SPDX-License-Identifier: GPL-2.0-or-later
"""`tinykdump test`: a crash on purpose, and what status says of it after the reboot.

The secret key never enters the guest.
"""

import json
from typing import Any

from tests.vm import service
from tests.vmtest.vm import VM

MODULES = "modprobe -a xhci_pci usb_storage uas sd_mod vfat nls_cp437 nls_ascii"
UP = r"tinykdump: \[.* s\] crash kernel .* is up"


def status(vm: VM) -> dict[str, Any]:
    return dict(json.loads(vm.run(["tinykdump", "status", "--json"], check=False).text))


def refusal(vm: VM, *words: str) -> str:
    done = vm.run(["tinykdump", "test", *words], check=False)
    assert done.status == 1
    (line,) = done.stderr.decode().splitlines()
    return line


def wait_for_stick(vm: VM) -> None:
    vm.shell(f"{MODULES}; until [ -e /sys/class/block/sda ]; do sleep 0.2; done")


def test_a_crash_on_purpose(vm: VM) -> None:
    """Its id comes out on the stick, also if sysrq is off."""
    wait_for_stick(vm)
    assert status(vm)["test"] is None
    vm.shell("echo 0 >/proc/sys/kernel/sysrq")
    vm.start(["tinykdump", "test", "--yes"])
    vm.wait_for_console(UP, service.CRASH_SECONDS)
    vm.wait_for_reboot(service.CRASH_SECONDS)
    vm.wait_for_agent()
    wait_for_stick(vm)
    found = status(vm)
    listed = "mount -o ro /dev/sda /mnt; cd /mnt; ls -d tinykdump/*/*; cd /; umount /mnt"
    (saved,) = vm.shell(listed).text.split()
    assert found["test"]["came_out"] is True
    assert found["test"]["result"] == f"saved as {saved}"
    assert 3 <= found["test"]["seconds"] < service.CRASH_SECONDS
    assert not [each for each in found["problems"] if "test" in each]
    text = vm.run(["tinykdump", "status"], check=False).text
    assert f" s after the crash: saved as {saved}\n" in text.split("last test:")[1]
    assert "  complete, test  " in vm.run(["tinykdump", "list", "--mount"]).text


def test_a_stick_that_is_pulled_during_the_crash(vm: VM) -> None:
    """Nothing is known until it is there again; then its id is on no dump."""
    wait_for_stick(vm)
    service.reconfigure(vm, "[dump]\nwait = 5\n")
    vm.start(["tinykdump", "test", "--yes"])
    vm.wait_for_console(UP, service.CRASH_SECONDS)
    vm.unplug("stick")
    vm.wait_for_reboot(service.CRASH_SECONDS)
    vm.wait_for_agent()
    unknown = status(vm)
    assert unknown["test"]["came_out"] is None
    says = " came out is not known (plug in its stick and run tinykdump status)"
    assert [each for each in unknown["problems"] if each.endswith(says)]
    vm.plug("stick")
    wait_for_stick(vm)
    found = status(vm)
    result = {"came_out": False, "result": "no dump on the stick has its id"}
    assert found["test"] == unknown["test"] | result
    says = " did not come out: no dump on the stick has its id (see tinykdump log, and run "
    assert [each for each in found["problems"] if says in each]
    assert "sda" not in vm.shell("cat /proc/self/mounts").text


def test_what_is_refused(vm: VM) -> None:
    """The machine goes on, and nothing is noted."""
    wait_for_stick(vm)
    no_terminal = "tinykdump: nobody can be asked: there is no terminal (add --yes)"
    assert refusal(vm) == no_terminal
    vm.unplug("stick")
    vm.shell("while [ -e /sys/class/block/sda ]; do sleep 0.2; done")
    says = "tinykdump: no stick with LABEL=TINYKDUMP is plugged in ("
    # The internal disk has the same label, and no udev.
    assert refusal(vm, "--yes").startswith(says)
    vm.plug("stick")
    wait_for_stick(vm)
    vm.run(["tinykdump", "unload"])
    says = "tinykdump: this machine is not armed (tinykdump status says what to do)"
    assert refusal(vm, "--yes") == says
    assert vm.shell("ls /var/lib/tinykdump").text.split() == ["images"]
