# SPDX-License-Identifier: GPL-2.0-or-later
"""The file systems that a stick may have: what mounts and makes them. No I/O here."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileSystem:
    """One type, as blkid(8) and mount(8) name it."""

    modules: tuple[str, ...]  # the modules that mounting it requests by name
    mounts: tuple[str, ...] = ()  # other types that its driver mounts
    # mount(8) options without which even a read-only mount writes to its journal.
    no_replay: tuple[str, ...] = ()
    # The commands that make one and that change its label; LABEL and DEVICE stand for these.
    make: tuple[str, ...] = ()
    relabel: tuple[str, ...] = ()
    package: str = ""  # of these programs
    longest_label: int = 0  # characters
    not_in_labels: str = ""  # characters
    # The type of its partition, in an MBR and in a GPT, as sfdisk(8) takes it.
    partition: tuple[str, str] = ("83", "0FC63DAF-8483-4772-8E79-3D69D8477DE4")


_EXT = ("tune2fs", "-L", "LABEL", "DEVICE")
_MICROSOFT = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"

FILESYSTEMS: Mapping[str, FileSystem] = {
    # FAT is always mounted with codepage=437,iocharset=ascii (see src/crash/stick.sh), whatever
    # the kernel's defaults are.
    "vfat": FileSystem(
        ("vfat", "nls_cp437", "nls_ascii"),
        make=("mkfs.vfat", "-F", "32", "-n", "LABEL", "DEVICE"),
        relabel=("fatlabel", "DEVICE", "LABEL"),
        package="dosfstools",
        longest_label=11,
        not_in_labels='*?.,;:/\\|+=<>[]"',
        partition=("c", _MICROSOFT),
    ),
    "exfat": FileSystem(
        ("exfat",),
        make=("mkfs.exfat", "-L", "LABEL", "DEVICE"),
        relabel=("exfatlabel", "DEVICE", "LABEL"),
        package="exfatprogs",
        longest_label=11,
        partition=("7", _MICROSOFT),
    ),
    "ext4": FileSystem(
        ("ext4",),
        mounts=("ext2", "ext3"),
        no_replay=("noload",),
        make=("mkfs.ext4", "-q", "-F", "-L", "LABEL", "DEVICE"),
        relabel=_EXT,
        package="e2fsprogs",
        longest_label=16,
    ),
    "ext2": FileSystem(("ext4",), relabel=_EXT, package="e2fsprogs", longest_label=16),
    "ext3": FileSystem(
        ("ext4",), no_replay=("noload",), relabel=_EXT, package="e2fsprogs", longest_label=16
    ),
    "xfs": FileSystem(("xfs",), no_replay=("norecovery",)),
    "btrfs": FileSystem(("btrfs",), no_replay=("rescue=nologreplay",)),
    "f2fs": FileSystem(("f2fs",), no_replay=("norecovery",)),
}


def possible(names: Collection[str]) -> tuple[str, ...]:
    """The types that an image can mount whose configuration has ``names``."""
    return tuple(FILESYSTEMS) if AUTO in names else tuple(names)


def command(words: tuple[str, ...], device: Path, label: str) -> tuple[str, ...]:
    """A command of the table, for that device and label."""
    given = {"DEVICE": str(device), "LABEL": label}
    return tuple(given.get(word, word) for word in words)


# In the configuration: FAT, and where the kernel has them exFAT, as sticks are sold with, and what
# the stick has that is plugged in.
AUTO = "auto"
ALWAYS, USUAL = "vfat", "exfat"

# Those that tinykdump prepare makes.
MADE = tuple(name for name, known in FILESYSTEMS.items() if known.make)


def is_mounted_by(kind: str, names: Collection[str]) -> bool:
    """Whether a crash kernel that supports ``names`` can mount a file system of type ``kind``."""
    known = (FILESYSTEMS[name] for name in names if name in FILESYSTEMS)
    return kind in names or any(kind in each.mounts for each in known)
