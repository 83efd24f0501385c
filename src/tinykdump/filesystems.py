# SPDX-License-Identifier: GPL-2.0-or-later
"""The file systems that a stick may have: what a crash kernel mounts them with. No I/O here."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class FileSystem:
    """One type, as blkid(8) and mount(8) name it."""

    modules: tuple[str, ...]  # the modules that mounting it requests by name
    mounts: tuple[str, ...] = ()  # other types that its driver mounts


FILESYSTEMS: Mapping[str, FileSystem] = {
    # FAT is always mounted with codepage=437,iocharset=ascii (see src/crash/lib.sh), whatever
    # the kernel's defaults are.
    "vfat": FileSystem(("vfat", "nls_cp437", "nls_ascii")),
    "exfat": FileSystem(("exfat",)),
    "ext4": FileSystem(("ext4",), mounts=("ext2", "ext3")),
    "ext2": FileSystem(("ext4",)),
    "ext3": FileSystem(("ext4",)),
    "xfs": FileSystem(("xfs",)),
    "btrfs": FileSystem(("btrfs",)),
    "f2fs": FileSystem(("f2fs",)),
}


def is_mounted_by(kind: str, names: Collection[str]) -> bool:
    """Whether a crash kernel that supports ``names`` can mount a file system of type ``kind``."""
    known = (FILESYSTEMS[name] for name in names if name in FILESYSTEMS)
    return kind in names or any(kind in each.mounts for each in known)
