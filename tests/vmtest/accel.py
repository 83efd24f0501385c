# SPDX-License-Identifier: GPL-2.0-or-later
"""Chooses KVM if it works: on some hosts /dev/kvm can be opened, but guests hang."""

import os
import tempfile
from pathlib import Path
from typing import Literal

from tests.vmtest import cache
from tests.vmtest.errors import MachineLost
from tests.vmtest.machine import Machine
from tests.vmtest.qemu import Qemu, started

Accel = Literal["tcg", "kvm"]

# Enough for a kernel under KVM to reach its /init.
PROBE_SECONDS = 20
# QEMU's exit status for vm.probe, which guest/first-init handles; unique to it.
PROBE_STATUS = 123


def best(kernel: Path, initrd: Path) -> Accel:
    """KVM if this kernel boots with it on this host, otherwise TCG.

    The result is cached until the host reboots; TINYKDUMP_ACCEL overrides it.
    """
    match chosen := os.environ.get("TINYKDUMP_ACCEL", ""):
        case "tcg" | "kvm":
            return chosen
        case "":
            pass
        case _:
            raise ValueError(f"TINYKDUMP_ACCEL is {chosen!r} (set it to tcg or kvm)")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    entry = cache.entry(
        "accel",
        cache.key(boot, kernel, PROBE_SECONDS),
        lambda directory: _write(directory, probe(kernel, initrd)),
    )
    return "kvm" if (entry / "kvm").exists() else "tcg"


def _write(directory: Path, works: bool) -> None:
    (directory / ("kvm" if works else "tcg")).touch()


def probe(
    kernel: Path, initrd: Path, *, accel: Accel = "kvm", seconds: float = PROBE_SECONDS
) -> bool:
    """Whether the kernel boots to the /init of its initramfs."""
    machine = Machine(
        kernel,
        initrd,
        ("vm.probe", "panic=-1"),
        accel=accel,
        memory_mib=512,
        devices=("isa-debug-exit,iobase=0xf4,iosize=0x4",),
        reboots=False,
    )
    with tempfile.TemporaryDirectory() as workdir:
        try:
            with started(Qemu, machine, Path(workdir)) as vm:
                return vm.wait_for_end(seconds) == PROBE_STATUS
        except MachineLost:
            return False
