# SPDX-License-Identifier: GPL-2.0-or-later
"""Secure Boot: a kernel that is locked down, and whose crash kernel is locked down, too.

Debian's kernel is signed with a key of the tests, which is in the firmware's db: there is no shim.
"""

import json
from pathlib import Path

from tests.vm import service, vmcore
from tests.vmtest import secureboot, stick
from tests.vmtest.machine import Stick
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import VM, running

# Beside builds.
CRASH_SECONDS = 1500.0

LOCKED_DOWN = "Kernel is locked down from EFI Secure Boot"


def load(vm: VM, kernel: Path, place: str) -> list[str]:
    """Load with that kernel image in that place; the error messages."""
    vm.put(kernel, place)
    result = vm.run(["tinykdump", "--load"], check=False)
    lines = result.stderr.decode().splitlines()
    assert result.status == int(bool(lines))
    return lines


def test_only_a_signed_kernel_is_loaded_and_saves_a_dump(
    root: Root, keys: service.KeyPair, tmp_path: Path
) -> None:
    made = secureboot.make(root.kernel)
    image = stick.make(tmp_path / "stick.img")
    machine = root.machine(
        "crashkernel=192M",
        kernel=made.signed,
        firmware=made.firmware,
        memory_mib=service.MEMORY_MIB,
        reboots=False,
        sticks=(Stick("stick", image.path),),
    )
    with running(machine, tmp_path / "vm") as vm:
        vm.wait_for_agent()
        assert LOCKED_DOWN in vm.console
        script = '#!/bin/sh\ncat /proc/sys/kernel/tainted >"$1/tainted"\n'
        vm.put(script.encode(), "/root/script", mode=0o755)
        service.install(vm, keys=keys, configuration="[dump]\nscript = /root/script\n")
        assert "[integrity]" in vm.run(["cat", "/sys/kernel/security/lockdown"]).text

        assert load(vm, made.signed, f"/boot/vmlinuz-{root.kver}") == []
        # This file comes before the other one, which stays for the image that was armed.
        (line,) = load(vm, made.unsigned, f"/lib/modules/{root.kver}/vmlinuz")
        assert line.startswith("tinykdump: kexec failed: kexec_file_load failed: ")
        assert line.endswith(
            " (see dmesg; Secure Boot and lockdown want a signed kernel, also in a unified image)"
        )
        assert "; the crash kernel that is loaded stays (" in line
        assert "signature verification failed" in vm.run(["dmesg"]).text
        assert json.loads(vm.run(["tinykdump", "status", "--json"], check=False).text)["armed"]
        # What the kernel trusts replaces what is loaded.
        vm.run(["rm", f"/lib/modules/{root.kver}/vmlinuz"])
        assert load(vm, made.signed, f"/boot/vmlinuz-{root.kver}") == []

        mark = service.mark()
        service.crash(vm, mark)
        vm.wait_for_reboot(CRASH_SECONDS)
        assert LOCKED_DOWN in vm.console.rpartition("Linux version")[2]
        vm.quit()
    # No module in it lacked a signature.
    assert stick.read(image, "tainted") == b"0\n"
    (dump,) = service.dumps(image, tmp_path / "copy")
    assert dump.complete
    service.restore(dump, tmp_path / "restored", keys.home)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")
