# SPDX-License-Identifier: GPL-2.0-or-later
"""A stock kernel panics, and the tests restore and read the dump on the stick."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.vm import service, vmcore
from tests.vmtest import stick
from tests.vmtest.errors import GuestFailed
from tests.vmtest.machine import Machine, Stick
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import VM, running

# Exactly the modules for the stick's controller, protocol and file system.
NEEDED_MODULES = [
    "usb_common", "usbcore", "xhci_hcd", "xhci_pci", "scsi_common", "scsi_mod", "usb_storage",
    "uas", "sd_mod", "fat", "vfat", "nls_cp437", "nls_ascii", "exfat",
]  # fmt: skip


def stick_image(vm: VM, name: str = "stick") -> stick.Image:
    return stick.Image(vm.machine.stick(name).image, "vfat")


def test_a_dump_is_saved_encrypted_and_restored(
    vm: VM, root: Root, keys: service.KeyPair, tmp_path: Path
) -> None:
    manifest = service.manifest(vm, root.kver)
    assert manifest["modules"] == NEEDED_MODULES
    assert manifest["key"] == keys.fingerprint
    assert manifest["packed"] <= 5_000_000
    assert manifest["unpacked"] <= 14_000_000
    assert service.reserved(vm) <= 84 << 20
    # The guest has no udev to load its drivers and name its disks.
    vm.shell("modprobe -a xhci_pci usb_storage uas sd_mod;"
             "until [ -e /sys/class/block/sda ]; do sleep 0.2; done")  # fmt: skip
    status = json.loads(vm.run(["tinykdump", "status", "--json"]).text)
    assert (status["stick"], status["stick_filesystem"]) == ("/dev/sda", "vfat")
    assert 500 << 20 < status["stick_free"] < 512 << 20
    # Debian 13 has makedumpfile 1.7.6, which may keep the free memory of 6.12.
    assert not [each for each in status["problems"] if "a dump takes up to" not in each]

    mark = service.crash_and_wait(vm)
    image = stick_image(vm)
    vm.quit()

    (dump,) = service.dumps(image, tmp_path / "stick")
    assert dump.complete
    assert dump.size < status["expected_dump"] < service.MEMORY_MIB << 20
    assert sorted(path.name for path in dump.directory.iterdir()) == [
        "SHA256SUMS", "STAGES", "dmesg.txt.gpg.000", "vmcore.flat.gpg.000",
    ]  # fmt: skip
    stages = (dump.directory / "STAGES").read_text()
    for stage in ("found the stick", "saving the memory", "the memory is written; waited "):
        assert stage in stages
    plain = image.path.read_bytes()
    for secret in (mark, "Kernel panic", "OSRELEASE=", "makedumpfile"):
        assert secret.encode() not in plain, f"{secret} is on the stick in plain text"

    service.restore(dump, tmp_path / "restored", keys.home)
    core = tmp_path / "restored/vmcore"
    assert mark in (tmp_path / "restored/vmcore-dmesg.txt").read_text()
    assert mark in vmcore.log(core)
    assert vmcore.has_process(core, mark, memory_mib=service.MEMORY_MIB)
    assert core.stat().st_mode & 0o777 == 0o600
    said = service.report(core)  # without symbols
    assert said.startswith("panic:    sysrq triggered crash\n")
    assert f"Crashing task: {mark} (PID " in said
    assert re.search(r"^    free +[0-9.]+ MiB  #", said, re.MULTILINE)
    assert f"no symbols of kernel {root.kver} " in said

    # The key does not say that its owner can decrypt it.
    assert not is_ocb(dump.directory / "vmcore.flat.gpg.000", keys.home)
    refuse_torn(dump, keys.home, tmp_path)


def is_ocb(part: Path, keys: Path) -> bool:
    """Whether gpg encrypted a stream with OCB, which it calls 2."""
    command = ["gpg", "--homedir", str(keys), "--batch", "--list-packets", str(part)]
    packets = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert ":encrypted data packet:" in packets or ":aead encrypted packet:" in packets
    return ":aead encrypted packet: cipher=9 aead=2 " in packets


def refuse_torn(dump: service.Dump, keys: Path, tmp_path: Path) -> None:
    """Cut a dump that was restored, as a power loss does, and restore what is left of it."""
    part, sums = dump.directory / "vmcore.flat.gpg.000", dump.directory / "SHA256SUMS"
    os.truncate(part, part.stat().st_size * 2 // 3)
    sums.write_text(sums.read_text().splitlines(keepends=True)[0])
    with pytest.raises(subprocess.CalledProcessError):
        service.restore(dump, tmp_path / "partial", keys)
    partial = vmcore.pages(tmp_path / "partial/vmcore-incomplete", memory_mib=service.MEMORY_MIB)
    whole = vmcore.pages(tmp_path / "restored/vmcore", memory_mib=service.MEMORY_MIB)
    assert 1000 < partial < whole


def test_a_late_stick_is_found_and_no_other_disk_is_touched(
    vm: VM, tmp_path: Path, machine: Machine
) -> None:
    """With the machine's own key, a script, and the drivers of the internal disks."""
    vm.unplug("stick")
    script = '#!/bin/sh\ngrep -c vda /proc/partitions >"$1/disks"; hostname >"$1/ran"\n'
    vm.put(script.encode(), "/root/script", mode=0o755)
    vm.put(b"", service.CONFIGURATION)
    service.reconfigure(
        vm, "[dump]\nscript = /root/script\n[image]\nmodules = virtio_pci,virtio_blk\n"
    )
    keys = tmp_path / "keys"
    subprocess.run(
        ["tar", "-x", "--one-top-level=" + str(keys)],
        input=vm.shell("tar -C /var/lib/tinykdump/keys -c --exclude=S.* .").stdout,
        check=True,
    )
    mark = service.mark()
    service.crash(vm, mark)
    vm.wait_for_console("tinykdump: .*waiting for the stick", 120)
    vm.plug("stick")
    vm.wait_for_reboot(service.CRASH_SECONDS)
    image = stick_image(vm)
    vm.quit()

    decoy = vm.machine.disks[1].overlay(vm.workdir)
    subprocess.run(["qemu-img", "compare", str(decoy), str(machine.disks[1].image)], check=True)
    assert stick.read(image, "disks") == b"1\n", "the crash kernel did not see the internal disk"
    assert "ran" in stick.files(image)
    (dump,) = service.dumps(image, tmp_path / "stick")
    assert dump.complete
    assert is_ocb(dump.directory / "vmcore.flat.gpg.000", keys)
    service.restore(dump, tmp_path / "restored", keys)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")
    refuse_torn(dump, keys, tmp_path)


def test_a_stick_with_exfat_and_the_machines_own_key(vm: VM, root: Root, tmp_path: Path) -> None:
    """After its reboot, the machine itself lists and restores the dump."""
    bought = stick.make(tmp_path / "bought.img", filesystem="exfat")
    vm.unplug("stick")
    vm.plug(Stick("bought", bought.path))
    vm.put(b"", service.CONFIGURATION)
    # Without it, a machine has another name after each reboot.
    vm.put(b"0123456789abcdef0123456789abcdef\n", "/etc/machine-id")
    vm.run(["tinykdump", "--load"])
    vm.run(["sync", "/etc/machine-id", "/etc"])  # tinykdump itself syncs the key that it made
    mark = service.crash_and_wait(vm)
    drivers = "modprobe -a xhci_pci usb_storage uas sd_mod exfat;"
    vm.shell(f"{drivers} until [ -e /sys/class/block/sda ]; do sleep 0.2; done")

    listed = json.loads(vm.run(["tinykdump", "list", "--mount", "--json"]).text)
    (found,) = listed["dumps"]
    assert (found["here"], found["complete"], found["key"]) == (True, True, True)
    assert (found["kernel"], found["panic"]) == (root.kver, "sysrq triggered crash")
    assert found["device"] == "/dev/sda"
    assert "sda" not in vm.run(["cat", "/proc/mounts"]).text
    assert "stick-" not in vm.run(["ls", "/run/tinykdump"]).text

    vm.run(["tinykdump", "restore", "/dev/sda", "-o", "/root/dump"])
    vm.run(["makedumpfile", "--dump-dmesg", "/root/dump/vmcore", "/root/log"])
    assert mark in vm.get("/root/log").decode(errors="replace")


def test_an_image_that_does_not_load_changes_nothing(
    vm: VM, root: Root, keys: service.KeyPair, tmp_path: Path
) -> None:
    """kexec refuses the new kernel: the image that was armed saves the dump, encrypted."""
    before = service.reserved(vm)
    vm.put(b"[crashkernel]\nmargin = 0\n[dump]\nencrypt = no\n", service.DROP_IN)
    service.break_kernel(vm, root.kver)
    failed = vm.run(["tinykdump", "--load"], check=False)
    assert failed.status == 1
    (line,) = failed.stderr.decode().splitlines()
    assert line.startswith("tinykdump: kexec failed: ")
    assert "could not be restored" not in line
    status = json.loads(vm.run(["tinykdump", "status", "--json"]).text)
    assert any("is newer than the loaded one" in problem for problem in status["problems"])
    assert status["needed"] < before, "the new image needs no less memory"
    assert service.reserved(vm) == before

    mark = service.crash_and_wait(vm)
    image = stick_image(vm)
    vm.quit()
    (dump,) = service.dumps(image, tmp_path / "stick")
    assert (dump.directory / "vmcore.flat.gpg.000").exists()
    service.restore(dump, tmp_path / "restored", keys.home)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")


def test_without_a_stick_the_final_action_follows(vm: VM) -> None:
    vm.unplug("stick")
    service.reconfigure(vm, "[dump]\nwait = 5\nfinal_action = poweroff\n")
    service.crash(vm, service.mark())
    event = vm.wait_for_reboot(service.CRASH_SECONDS)
    assert (event["event"], event["data"]["reason"]) == ("SHUTDOWN", "guest-shutdown")


def test_a_full_stick_keeps_the_log(vm: VM, keys: service.KeyPair, tmp_path: Path) -> None:
    vm.unplug("stick")
    vm.plug("small")
    mark = service.crash_and_wait(vm)
    image = stick_image(vm, "small")
    vm.quit()
    (dump,) = service.dumps(image, tmp_path / "stick")
    assert not dump.complete
    with pytest.raises(subprocess.CalledProcessError):
        service.restore(dump, tmp_path / "restored", keys.home)
    restored = tmp_path / "restored"
    assert not (restored / "vmcore").exists()
    assert mark in (restored / "vmcore-dmesg.txt").read_text()


# 16 MiB of log in lines that the console does not show.
_FILL_LOG = """
import os
os.system("sysctl -q kernel.printk_devkmsg=on || echo on >/proc/sys/kernel/printk_devkmsg")
kmsg = os.open("/dev/kmsg", os.O_WRONLY)
for number in range(17000):
    os.write(kmsg, b"<7>" + b"%d " % number + 950 * b"x")
"""


def test_parameters_and_modprobe_d_apply_in_the_crash_kernel(
    root: Root, keys: service.KeyPair, tmp_path: Path
) -> None:
    """A large, full log buffer, and rules of modprobe.d for USB storage."""
    usual = stick.make(tmp_path / "stick.img")
    machine = root.machine("crashkernel=320M", "log_buf_len=16M", memory_mib=service.MEMORY_MIB,
                           sticks=(Stick("stick", usual.path),))  # fmt: skip
    with running(machine, tmp_path / "vm") as vm:
        vm.wait_for_agent()
        vm.put(b"blacklist uas\noptions usb-storage quirks=46f4:0001:s\n", "/etc/modprobe.d/t.conf")
        script = '#!/bin/sh\ncat /sys/module/usb_storage/parameters/quirks >"$1/quirks"\n'
        vm.put(script.encode(), "/root/script", mode=0o755)
        service.install(vm, keys=keys, configuration="[dump]\nscript = /root/script\n")
        service.kernel_install(vm, "add", root.kver)
        assert service.manifest(vm, root.kver)["modules"] == [
            name for name in NEEDED_MODULES if name != "uas"
        ]
        vm.run(["python3", "-c", _FILL_LOG], timeout=300)
        mark = service.mark()
        service.crash(vm, mark)
        vm.wait_for_reboot(2 * service.CRASH_SECONDS)
        image = stick_image(vm)
        vm.quit()
    (dump,) = service.dumps(image, tmp_path / "stick")
    assert dump.complete
    assert stick.read(image, "quirks") == b"46f4:0001:s\n"
    service.restore(dump, tmp_path / "restored", keys.home)
    log = (tmp_path / "restored/vmcore-dmesg.txt").read_text()
    assert mark in log
    assert len(log) > 15 << 20


def test_another_programs_crash_kernel_is_not_replaced(vm: VM, root: Root) -> None:
    """It is replaced only with takeover = yes. The machine does not crash here."""
    vm.run(["tinykdump", "unload"])
    kexec = f"kexec -p -a --reuse-cmdline /boot/vmlinuz-{root.kver}"
    vm.shell(kexec)
    refused = vm.run(["tinykdump", "-l"], check=False)
    assert refused.status == 1
    assert "another program's crash kernel is loaded" in refused.stderr.decode()
    assert vm.run(["tinykdump", "unload"], check=False).status == 1
    assert vm.run(["cat", "/sys/kernel/kexec_crash_loaded"]).text == "1\n"
    status = vm.run(["tinykdump", "status"], check=False)
    assert status.status == 1
    assert "another program's crash kernel is loaded" in status.text

    vm.put(b"[crashkernel]\ntakeover = yes\n", service.DROP_IN)
    vm.run(["tinykdump", "-l"])
    assert vm.run(["tinykdump", "status"]).status == 0


def test_removing_a_kernel_removes_its_image(vm: VM, root: Root) -> None:
    """If it was loaded, the running kernel's image is loaded instead."""
    old = f"{root.kver}-old"
    vm.shell(
        f"cp /boot/config-{root.kver} /boot/config-{old};"
        f"cd /var/lib/tinykdump/images; cp -r {root.kver} {old};"
        f'sed -i \'s/"kver": .*/"kver": "{old}",/\' {old}/manifest.json'
    )
    load = f"host = Host(); load.load(host, state.read_manifest(host, '{old}'), takeover=False)"
    imports = "from tinykdump import load, state; from tinykdump.host import Host;"
    vm.run(["python3", "-c", f"{imports} {load}"])
    assert f"armed with {old}" in vm.run(["tinykdump", "status"]).text

    service.kernel_install(vm, "remove", old)
    assert vm.run(["ls", "/var/lib/tinykdump/images"]).text == f"{root.kver}\n"
    assert f"armed with {root.kver}\n" in vm.run(["tinykdump", "status"]).text

    service.kernel_install(vm, "remove", root.kver)
    assert vm.run(["ls", "/var/lib/tinykdump/images"]).text == ""


def test_without_a_reservation_nothing_is_loaded(vm: VM) -> None:
    vm.run(["tinykdump", "unload"])
    vm.shell("echo 0 >/sys/kernel/kexec_crash_size")
    with pytest.raises(GuestFailed) as failed:
        vm.run(["tinykdump", "-l"])
    (line,) = failed.value.result.stderr.decode().splitlines()
    assert line.startswith("tinykdump: no memory is reserved for a crash kernel")
    assert "add crashkernel=" in line
