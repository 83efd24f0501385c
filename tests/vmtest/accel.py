# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM where it works. That /dev/kvm can be opened says little: on some hosts guests then hang."""

import os
import subprocess
from pathlib import Path
from typing import Literal

from tests.vmtest import cache

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
    command = [
        "qemu-system-x86_64",
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-machine", "q35", "-m", "512M",
        "-accel", accel, "-cpu", "host" if accel == "kvm" else "max",
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", "vm.probe panic=-1",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4",
    ]  # fmt: skip
    try:
        ended = subprocess.run(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == PROBE_STATUS
