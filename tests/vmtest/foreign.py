# SPDX-License-Identifier: GPL-2.0-or-later
"""A root file system of another architecture: Debian's packages, unpacked on this machine.

No program of the guest runs here, so the scripts of the packages do not run either. What a guest
needs of them is done by _finish().
"""

import shutil
import subprocess
from pathlib import Path

from tests.vmtest import cache, rootfs
from tests.vmtest.machine import AARCH64
from tests.vmtest.rootfs import KEYRING, Root
from tinykdump.image import elf

ARCHITECTURE = "arm64"
SUITE = "trixie"
# Here no package is installed because it is essential.
ESSENTIAL = (
    "base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils",
    "findutils", "grep", "gzip", "hostname", "libc-bin", "mawk", "sed", "tar",
)  # fmt: skip
# initramfs-tools, which comes with the kernel, is unpacked, but nothing calls it.
PACKAGES = (*ESSENTIAL, *rootfs.PACKAGES, f"linux-image-{ARCHITECTURE}")
SIZE_MIB = 4096
# Increase this when what _build() makes changes in other ways than by its command.
FORMAT = 1


def build() -> Root:
    """The root file system, built if it is not in the cache."""
    key = cache.key(_command(Path("tree"), "mirror"), SIZE_MIB, FORMAT)
    return Root(cache.entry("root", key, _build), AARCH64)


def _command(tree: Path, address: str) -> list[str]:
    return [
        "mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--format=directory",
        f"--architectures={ARCHITECTURE}",
        f"--keyring={KEYRING}",
        f"--include={','.join(PACKAGES)}",
        '--aptopt=Acquire::Retries "5"',
        '--aptopt=APT::Install-Recommends "false"',
        SUITE, str(tree), address,
    ]  # fmt: skip


def _build(directory: Path) -> None:
    tree = directory / "tree"
    subprocess.run(_command(tree, rootfs.mirror()), check=True)
    _finish(tree)
    (kver,) = (path.name for path in (tree / "usr/lib/modules").iterdir())
    subprocess.run(["depmod", "--basedir", str(tree), kver], check=True)
    shutil.copy(tree / f"boot/vmlinuz-{kver}", directory / "vmlinuz")
    (directory / "kver").write_text(f"{kver}\n", encoding="ascii")
    rootfs.make_image(tree, directory / "root.img", size_mib=SIZE_MIB)


def _finish(tree: Path) -> None:
    """What the packages' scripts do, as far as a guest needs it."""
    for name in ("passwd", "group"):
        shutil.copy(tree / f"usr/share/base-passwd/{name}.master", tree / "etc" / name)


def libraries_of(root: Root, program: Path) -> dict[str, Path]:
    """The loader and the libraries of a program in the root: path there -> file."""
    found: dict[str, Path] = {}
    left = [program]
    while left:
        new = {str(path.relative_to(root.tree)): path for path in _needed(root.tree, left.pop())}
        left += [path for place, path in new.items() if place not in found]
        found |= new
    return found


def _needed(tree: Path, program: Path) -> list[Path]:
    facts = elf.parse(program.read_bytes(), str(program))
    loaders = [tree / facts.interpreter.lstrip("/")] if facts.interpreter else []
    return [*loaders, *(next(tree.glob(f"usr/lib/*-linux-gnu/{name}")) for name in facts.needed)]
