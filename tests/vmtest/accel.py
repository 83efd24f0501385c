# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM where it works. That /dev/kvm can be opened says little: on some hosts guests then hang."""

import os
import tempfile
from pathlib import Path
from typing import Literal

from tests.vmtest import cache
from tests.vmtest.errors import MachineLost
from tests.vmtest.machine import Machine
from tests.vmtest.qemu import Qemu, started

Accel = Literal["tcg", "kvm"]

# Enough for a kernel under KVM to get to its /init, little enough to wait for once a boot.
PROBE_SECONDS = 20
# What the first system's vm.probe makes QEMU end with; nothing else gives this status.
PROBE_STATUS = 123


def best(kernel: Path, initrd: Path) -> Accel:
    """KVM if this kernel has been seen to boot with it here, else TCG.

    The answer is kept for as long as the host is up; TINYKDUMP_ACCEL overrides it.
    """
    match chosen := os.environ.get("TINYKDUMP_ACCEL", ""):
        case "tcg" | "kvm":
            return chosen
        case "":
            pass
        case _:
            raise ValueError(f"TINYKDUMP_ACCEL is {chosen!r} (it can be tcg or kvm)")
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
    """Boot to the first system and no further."""
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
