# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs and sticks that fail or hang while the crash kernel writes the dump.

The script that runs before the dump breaks the programs.
"""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vm import service, vmcore
from tests.vmtest import stick
from tests.vmtest.machine import Machine, Stick
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import VM, running

SCRIPT = "/root/script"

# Bytes per second; 0 would mean no limit.
STOPPED = 1


def arm_with_script(vm: VM, text: str, configuration: str = "") -> None:
    vm.put(f"#!/bin/sh\n{text}\n".encode(), SCRIPT, mode=0o755)
    service.reconfigure(vm, f"[dump]\nscript = {SCRIPT}\n{configuration}")


def stick_image(vm: VM) -> stick.Image:
    return stick.Image(vm.machine.stick("stick").image, "vfat")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("rm /bin/makedumpfile", "could not save the memory with makedumpfile: "),
        # A program that never ends, like makedumpfile on damaged lists of pages.
        ("rm /bin/makedumpfile; printf '#!/bin/sh\\nwhile :; do :; done' >/bin/makedumpfile;"
         "chmod +x /bin/makedumpfile", "killed makedumpfile: no progress for "),
    ],
    ids=["missing", "hangs"],
)  # fmt: skip
def test_the_memory_is_copied_when_makedumpfile_does_not_work(
    vm: VM, tmp_path: Path, script: str, says: str
) -> None:
    """The copy is as large as the memory, and drgn can read it."""
    large = stick.make(tmp_path / "large.img", size_mib=2048)
    vm.unplug("stick")
    vm.plug(Stick("large", large.path))
    arm_with_script(vm, script, "stall = 20\nencrypt = no\n")
    mark = service.crash_and_wait(vm)
    console = vm.console
    vm.quit()
    assert says in console
    (dump,) = service.dumps(large, tmp_path / "files")
    assert dump.complete
    assert sorted(path.name for path in dump.directory.iterdir()) == [
        "SHA256SUMS", "STAGES", "dmesg.txt.000", "vmcore.000",
    ]  # fmt: skip
    core = dump.directory / "vmcore.000"
    assert mark in vmcore.log(core)
    assert vmcore.has_process(core, mark, memory_mib=service.MEMORY_MIB)


def test_a_stick_that_is_pulled_out_and_comes_back(
    vm: VM, keys: service.KeyPair, tmp_path: Path
) -> None:
    """Just after it was found, and in the middle of the memory; the last try saves the dump."""
    mark = service.mark()
    service.crash(vm, mark)
    for stage, failure in (("found the stick", "cannot mount|cannot write"),
                           ("saving the memory", "could not save the memory")):  # fmt: skip
        vm.wait_for_console(stage, service.CRASH_SECONDS)
        vm.unplug("stick")
        vm.wait_for_console(f"the stick was pulled out: ({failure})", service.CRASH_SECONDS)
        vm.plug("stick")
    vm.wait_for_reboot(service.CRASH_SECONDS)
    console = vm.console
    vm.quit()
    assert "] failed: " not in console
    assert "dump saved; final action: reboot" in console
    *torn, new = service.dumps(stick_image(vm), tmp_path / "stick")
    assert [dump.complete for dump in torn] == [False]
    service.restore(new, tmp_path / "restored", keys.home)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")


def test_a_stick_that_hangs(vm: VM) -> None:
    """No process that waits for it can be killed, but the final action follows.

    A long timeout keeps the kernel from resetting the stick, which would block QEMU.
    """
    patience = "for timeout in /sys/block/sd*/device/timeout; do echo 3600 >$timeout; done"
    arm_with_script(vm, patience, "stall = 20\n")
    service.crash(vm, service.mark())
    vm.wait_for_console("saving the memory", service.CRASH_SECONDS)
    (disk,) = (
        each["qdev"] for each in vm.qmp("query-block")
        if each["inserted"]["node-name"] == "stick-image"
    )  # fmt: skip
    limits = dict.fromkeys(("bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
    vm.qmp("block_set_io_throttle", id=disk, bps=STOPPED, **limits)
    vm.wait_for_reboot(service.CRASH_SECONDS)
    console = vm.console
    vm.quit()
    assert "failed: no progress for " in console
    assert "dump failed; final action: reboot" in console


def test_a_stick_that_a_partial_dump_has_filled(
    vm: VM, keys: service.KeyPair, tmp_path: Path
) -> None:
    """Its memory is removed to make room for the new dump. Its log stays."""
    image = stick_image(vm)
    machine = vm.run(
        ["python3", "-c", "from tinykdump import hardware; from tinykdump.host import Host;"
         "print(hardware.machine_name(Host()))"]
    ).text.strip()  # fmt: skip
    vm.unplug("stick")
    partial = f"tinykdump/{machine}/20250101T000000Z.partial"
    for name in ("tinykdump", f"tinykdump/{machine}", partial):
        stick.make_directory(image, name)
    stick.write(image, f"{partial}/dmesg.txt.gpg.000", b"log")
    stick.write(image, f"{partial}/vmcore.flat.gpg.000", bytes(500 << 20))
    vm.plug("stick")
    mark = service.crash_and_wait(vm)
    vm.quit()
    old, new = service.dumps(image, tmp_path / "stick")
    assert (old.complete, new.complete) == (False, True)
    assert [path.name for path in old.directory.iterdir()] == ["dmesg.txt.gpg.000"]
    service.restore(new, tmp_path / "restored", keys.home)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")


def test_a_key_that_expires_before_the_crash(vm: VM, tmp_path: Path) -> None:
    """It expires after the image was loaded, and before the crash."""
    home = tmp_path / "keys"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", "soon@localhost", "default", "default", "1d"],
                   check=True)  # fmt: skip
    public = subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    vm.put(public, service.KEY)
    vm.run(["tinykdump", "--load"])
    # The crash kernel reads the same hardware clock.
    vm.shell("date -s @$(($(date +%s) + 40 * 86400)); hwclock --systohc --utc 2>/dev/null || "
             "python3 -c \"import fcntl, struct, time; t = time.gmtime(); "
             "fcntl.ioctl(open('/dev/rtc0'), 0x4024700a, struct.pack('9i', t.tm_sec, t.tm_min, "
             "t.tm_hour, t.tm_mday, t.tm_mon - 1, t.tm_year - 1900, 0, 0, 0))\"")  # fmt: skip
    mark = service.crash_and_wait(vm)
    image = stick_image(vm)
    vm.quit()
    (dump,) = service.dumps(image, tmp_path / "stick")
    assert dump.complete
    ahead = time.strftime("%Y%m%d", time.gmtime(time.time() + 30 * 86400))
    assert dump.directory.name > ahead, "the crash kernel's clock was not ahead"
    service.restore(dump, tmp_path / "restored", home)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")


WATCHDOGS = {
    "i6300esb": (("i6300esb",), "modprobe i6300esb heartbeat=30", "/dev/watchdog0"),
    # It has no device in /sys/class/watchdog, and its driver stops it when it is loaded.
    "ipmi_watchdog": (
        ("ipmi-bmc-sim,id=bmc", "isa-ipmi-kcs,bmc=bmc"),
        "modprobe ipmi_si; modprobe ipmi_watchdog timeout=30 pretimeout=0", "/dev/watchdog",
    ),
}  # fmt: skip


@pytest.mark.parametrize("driver", WATCHDOGS)
def test_a_running_watchdog_does_not_end_the_dump(
    machine: Machine, root: Root, keys: service.KeyPair, tmp_path: Path, driver: str
) -> None:
    """It would reset the machine after 30 s, and the dump takes longer."""
    devices, load, device = WATCHDOGS[driver]
    image = stick.make(tmp_path / "stick.img")
    watched = replace(
        machine, devices=devices, arguments=("-action", "watchdog=reset"),
        sticks=(Stick("stick", image.path),),
    )  # fmt: skip
    with running(watched, tmp_path / "vm") as vm:
        vm.wait_for_agent()
        service.install(vm, keys=keys)
        vm.shell(load)
        vm.start(["sh", "-c", f"while echo && sleep 5; do :; done >{device}"])
        vm.shell(f"until [ $(cat /sys/module/{driver}/refcnt) -gt 0 ]; do sleep 0.2; done")
        arm_with_script(vm, "sleep 45", "script_wait = 60\n")
        assert driver in service.manifest(vm, root.kver)["modules"]
        service.crash_and_wait(vm)
        console = vm.console
        vm.quit()
    assert "saved as " in console
    (dump,) = service.dumps(image, tmp_path / "files")
    assert dump.complete
