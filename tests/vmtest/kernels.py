# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that boot a kernel built by kernel/, on the usual root file system."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kernel.build
from kernel.build import CRASH, Request
from kernel.source import newest
from tests.vmtest import accel, cache, initramfs, rootfs
from tests.vmtest.machine import PLATFORMS, X86_64, Disk, Machine, Platform


@dataclass(frozen=True)
class Kernel:
    """A kernel that kernel/build.py built."""

    directory: Path
    platform: Platform = X86_64

    @property
    def kver(self) -> str:
        return (self.directory / "release").read_text().strip()

    @property
    def modules(self) -> Path:
        return self.directory / "lib/modules" / self.kver

    def machine(self, root: rootfs.Root, *append: str, **changes: Any) -> Machine:
        """A machine that boots this kernel on that root; ``changes`` are fields of Machine."""
        first = initramfs.build(self.modules, root.busybox)
        image = self.directory / "vmlinuz"
        usual = root.machine("vm.modules=/dev/vdb", *append)
        fields: dict[str, Any] = {
            "kernel": image,
            "initrd": first,
            "accel": accel.best(image, first),
            "append": usual.append,
            "disks": (*usual.disks, Disk("modules", self.image())),
        }
        return Machine(**fields | changes)

    def image(self) -> Path:
        """A disk with lib/modules, the kernel image and its configuration.

        Without debugging information, like the modules of distributions.
        """

        def build(directory: Path) -> None:
            with tempfile.TemporaryDirectory(dir=directory) as name:
                tree = Path(name)
                shutil.copytree(self.modules, tree / self.kver, symlinks=True)
                for file in ("vmlinuz", "config"):
                    shutil.copy(self.directory / file, tree / self.kver)
                # Compressed modules are of a kernel without debugging information.
                modules = [str(path) for path in tree.rglob("*.ko")]
                if modules:
                    subprocess.run(["strip", "--strip-debug", *modules], check=True)
                rootfs.make_image(tree, directory / "modules.img", size_mib=256)

        return cache.entry("modules", cache.key(self.directory.name, 1), build) / "modules.img"


# Without series, and with what Fedora builds into its kernels.
FEDORA = Request(series=[], fragments=(*Request().fragments, "fedora"))

# The small crash kernel.
SMALL = Request(fragments=(CRASH,))

# Environment variables for finished kernels: directories that "python3 -m kernel build" made.
PATCHED, STOCK = "TINYKDUMP_TEST_KERNEL", "TINYKDUMP_TEST_KERNEL_STOCK"
NAMED_SMALL = "TINYKDUMP_TEST_KERNEL_SMALL"


def build(request: Request | None = None) -> Kernel:
    """The kernel with all series, or another one; built now if it is not in the cache.

    With the guests' configuration, the environment can name kernels with and without the series,
    and the small crash kernel. One of another release than the wanted one is not used.
    """
    request = request or Request()
    named = ""
    if request.architecture:
        plan = kernel.build.make_plan(request)
        return Kernel(kernel.build.build(plan), PLATFORMS[request.architecture.name])
    if request.fragments == SMALL.fragments and request.series is None:
        named = os.environ.get(NAMED_SMALL, "")
    elif request.fragments == Request().fragments and not request.series:
        named = os.environ.get(PATCHED if request.series is None else STOCK, "")
    if named and (not request.release or newest([Kernel(Path(named)).kver], request.release.name)):
        return Kernel(Path(named))
    return Kernel(kernel.build.build(kernel.build.make_plan(request)))
