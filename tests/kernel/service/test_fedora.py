# SPDX-License-Identifier: GPL-2.0-or-later
"""A stock kernel with what Fedora has built in, on machines with EFI and a large screen."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.build import Request
from tests.vm import service, vmcore
from tests.vmtest import kernels, stick
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import DISPLAY, OVMF, Stick, screen_mode
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import running

MEMORY_MIB = 1024
CRASH_SECONDS = 1500.0  # beside builds
# The driver has made a framebuffer, which it draws to from a copy in memory.
DRAWS = "simpledrmdrmfb frame buffer device"


@pytest.fixture(scope="module")
def fedora(build_kernel: Callable[[Request], Kernel]) -> Kernel:
    return build_kernel(kernels.FEDORA)


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (3840, 2160)])
def test_the_need_without_a_margin_is_enough_whatever_the_screen(
    fedora: Kernel, root: Root, tmp_path: Path, width: int, height: int
) -> None:
    image = stick.make(tmp_path / "stick.img")
    machine = fedora.machine(
        root,
        "crashkernel=256M",
        screen_mode(width, height),
        memory_mib=MEMORY_MIB,
        firmware=OVMF,
        devices=(DISPLAY,),
        sticks=(Stick("stick", image.path),),
        reboots=False,
    )
    keys = service.cached_key_pair()
    with running(machine, tmp_path / "vm") as vm:
        assert DRAWS in vm.run(["dmesg"]).text
        assert vm.shell("cat /sys/class/drm/*/modes").text == f"{width}x{height}\n"
        script = '#!/bin/sh\ndmesg >"$1/log"\n'
        vm.put(script.encode(), "/root/script", mode=0o755)
        configuration = "[crashkernel]\nmargin = 0\n[dump]\nscript = /root/script\n"
        service.install(vm, keys=keys, configuration=configuration)
        vm.run(["tinykdump", "--load"])
        made = service.manifest(vm, fedora.kver)
        # All others are built in.
        assert made["modules"] == ["usb_storage", "uas", "fat", "vfat", "exfat"]
        status = json.loads(vm.run(["tinykdump", "status", "--json"]).text)
        assert (status["armed"], status["needed"]) == (True, service.reserved(vm))

        mark = service.mark()
        service.crash(vm, mark)
        vm.wait_for_reboot(CRASH_SECONDS)
        vm.quit()
    (dump,) = service.dumps(image, tmp_path / "copy")
    assert dump.complete
    log = stick.read(image, "log").decode()
    assert "Linux version" in log
    assert DRAWS not in log
    service.restore(dump, tmp_path / "restored", keys.home)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")
