# SPDX-License-Identifier: GPL-2.0-or-later
"""The machines that the rows start from, armed and cached as snapshots."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.scenario import Kernel, Shape
from tests.vm import service
from tests.vmtest import kernels, rootfs, snapshot, stick
from tests.vmtest.machine import Machine, Stick
from tests.vmtest.vm import VM

# Debian's kernel needs it; kernel-tinykdump needs no parameter.
CRASHKERNEL = "crashkernel=192M"

# Where pstore keeps its records, of 8 KiB each.
ERST_KIB = 256


@dataclass(frozen=True)
class Ground:
    """A machine that is ready to crash, with a stick at the controller's first port."""

    machine: Machine
    snapshot: Path
    kver: str
    keys: service.KeyPair


def prepare(kernel: Kernel, shape: Shape, directory: Path) -> Ground:
    """Arm a machine with that kernel, or find its snapshot."""
    keys = service.cached_key_pair()
    directory.mkdir(parents=True, exist_ok=True)
    usual = stick.make(directory / "stick.img")
    root = rootfs.build()
    fields: dict[str, Any] = {"memory_mib": shape.memory_mib, "cpus": shape.cpus,
                              "controllers": shape.controllers, "arguments": shape.arguments,
                              "erst_kib": ERST_KIB, "lifetime": shape.lifetime,
                              "sticks": (Stick("stick", usual.path),)}  # fmt: skip
    # Free memory is zero, so it is never in a dump: without KVM, each MiB of it takes a second.
    append = ("init_on_free=1", *shape.append)
    if kernel == "patched":
        built = kernels.build()
        kver, machine = built.kver, built.machine(root, *append, **fields)
    else:
        kver, machine = root.kver, root.machine(CRASHKERNEL, *append, **fields)

    def arm(vm: VM) -> None:
        service.install(vm, keys=keys)
        service.kernel_install(vm, "add", kver)
        vm.shell("sync; echo 3 >/proc/sys/vm/drop_caches")

    armed = snapshot.armed(machine, arm, service.archive(), keys.public, inspect.getsource(arm))
    return Ground(machine, armed, kver, keys)
