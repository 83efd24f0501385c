# SPDX-License-Identifier: GPL-2.0-or-later
"""What a build of the kernel depends on the processor for: a table of values."""

import platform
from dataclasses import dataclass

from kernel.run import KernelError


@dataclass(frozen=True)
class Architecture:
    """A processor that kernels are built for."""

    # x86_64: what uname -m says
    name: str
    # What Kbuild calls it: ARCH=
    kbuild: str
    # The prefix of a compiler for it, on a machine of another architecture
    cross: str
    # The target of make with the image that kexec loads, and its file
    target: str
    image: str
    # The fragment in config/ that the guests' kernel begins with
    guests: str
    # Series that no other architecture is built with
    series: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """What the names of the compiler and its tools begin with on this machine."""
        return "" if platform.machine() == self.name else self.cross


X86_64 = Architecture(
    name="x86_64",
    kbuild="x86",
    cross="x86_64-linux-gnu-",
    target="bzImage",
    image="arch/x86/boot/bzImage",
    guests="vm",
)
ARM64 = Architecture(
    name="aarch64",
    kbuild="arm64",
    cross="aarch64-linux-gnu-",
    target="Image",
    image="arch/arm64/boot/Image",
    guests="arm64",
    series=("kexec-cma-arm64",),
)
ARCHITECTURES = {one.name: one for one in (X86_64, ARM64)}


def native() -> Architecture:
    """That of this machine. Raises KernelError if the series were never built for it."""
    name = platform.machine()
    if name not in ARCHITECTURES:
        raise KernelError(
            f"the series are not built for {name}", f"choose one of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]
