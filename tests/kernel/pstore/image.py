# SPDX-License-Identifier: GPL-2.0-or-later
"""The image of both kernels: the small init, kexec and the backends' modules."""

import tempfile
from pathlib import Path

from tests import fakehost
from tests.vmtest import initramfs
from tests.vmtest.kernels import Kernel

# Loaded, in this order, at each boot of a kernel that does not have them built in.
MODULES = ("watchdog", "i6300esb", "lkdtm", "efivarfs")
# Loaded by a test when it is time, and not before.
BACKENDS = (
    "reed_solomon", "ramoops", "efi_pstore",
)  # fmt: skip


def build(kernel: Kernel, image: Path) -> None:
    """For the first kernel; what it loads for a crash is in it."""
    order = initramfs.load_order(kernel.modules, (), MODULES)
    with tempfile.TemporaryDirectory() as name:
        tree = initramfs.small(Path(name) / "tree", fakehost.real("busybox"), order)
        tree.modules(initramfs.load_order(kernel.modules, (), BACKENDS))
        tree.program("kexec")
        (tree.root / "pstore").mkdir()
        crash = Path(name) / "crash.img"
        tree.pack(crash, compressed=True)
        tree.put(crash, "crash/initrd")
        tree.put(kernel.directory / "vmlinuz", "crash/kernel")
        tree.pack(image)
