# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the host's files and writes its kernel interfaces; no other module does so directly.

All functions take absolute paths of the host and look them up below ``root``, so that tests
can pass a recorded tree.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tinykdump.errors import TinykdumpError

# The inode of the PID namespace that the kernel starts with (PROC_PID_INIT_INO in linux/proc_ns.h;
# in the interface as PID_NS_INIT_INO since Linux 6.17).
_FIRST_PROCESSES = 0xEFFFFFFC


@dataclass(frozen=True)
class Host:
    """A machine, by its file system."""

    root: Path = Path("/")
    # Whether it is the running machine: it can be armed, and sysfs shows its hardware.
    live: bool = False

    @classmethod
    def given(cls, environment: Mapping[str, str]) -> "Host":
        """The host that a command works on: below TINYKDUMP_ROOT if set, otherwise below /."""
        root = Path(environment.get("TINYKDUMP_ROOT", "/"))
        return cls(root, live=root == Path("/") and _is_live())

    def path(self, name: str | Path) -> Path:
        """The real path of ``name``, an absolute path of the host."""
        return self.root / str(name).lstrip("/")

    def resolve(self, name: str | Path) -> Path | None:
        """The host's absolute path of ``name`` with all links followed; None if it does not exist.

        Links are followed as on the host: an absolute link stays below ``root``.
        """
        parts = list(Path(str(name)).parts[1:])
        done = Path("/")
        links = 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                done = done.parent
                continue
            here = self.path(done / part)
            if here.is_symlink():
                links += 1
                if links > 40:  # MAXSYMLINKS, as in the kernel
                    return None
                target = here.readlink()
                parts = [*target.parts[1 if target.is_absolute() else 0 :], *parts]
                done = Path("/") if target.is_absolute() else done
                continue
            if not here.exists():
                return None
            done = done / part
        return done

    def exists(self, name: str | Path) -> bool:
        """Whether ``name`` exists, with links followed."""
        return self.resolve(name) is not None

    def read(self, name: str | Path) -> bytes:
        """The bytes of a file. Raises TinykdumpError when it cannot be read."""
        try:
            return self.path(self.resolve(name) or name).read_bytes()
        except OSError as error:
            raise TinykdumpError(
                f"{name}: {error.strerror}", "check that the file exists and is readable"
            ) from None

    def text(self, name: str | Path) -> str | None:
        """The stripped text of a file, or None if it cannot be read."""
        try:
            return self.path(self.resolve(name) or name).read_text(errors="replace").strip()
        except OSError:
            return None

    def running_kernel(self) -> str:
        """The version of the running kernel, as uname -r prints it."""
        return self.text("/proc/sys/kernel/osrelease") or ""

    def vouch(self, name: str | Path) -> None:
        """Raise TinykdumpError if users other than root can change the contents of ``name``.

        As in sshd(8), they can if they own or can write the file or a directory above it. Below
        another root, its owner and the current user count as root. A missing file passes.
        """
        found, beside = self.resolve(name), self.resolve(Path(name).parent)
        if not found or not beside:
            return
        trusted = {0, os.geteuid(), self.path("/").stat().st_uid}
        # Both the directory of a link and its target count.
        for place in (found, *found.parents, beside, *beside.parents):
            status = self.path(place).stat()
            # In a sticky directory (/tmp), users cannot replace files of others.
            sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
            if status.st_uid not in trusted or (status.st_mode & 0o022 and not sticky):
                raise TinykdumpError(
                    f"{name} is not safe: users other than root can write {place}",
                    "chown root and chmod go-w it, or move the file",
                )

    def children(self, name: str | Path) -> list[Path]:
        """The sorted entries of a directory as absolute paths; none if it does not exist."""
        directory = self.path(self.resolve(name) or name)
        if not directory.is_dir():
            return []
        return sorted(Path(str(name)) / entry.name for entry in directory.iterdir())

    def walk(self, name: str | Path) -> Iterator[tuple[Path, list[str]]]:
        """Every directory below ``name`` with the sorted names of its files."""
        top = str(self.path(self.resolve(name) or name))
        for directory, subdirectories, files in os.walk(top):
            subdirectories.sort()
            yield Path(f"{name}{directory.removeprefix(top)}"), sorted(files)

    def write(self, name: str | Path, value: str) -> None:
        """Write a kernel interface in one write(2). Raises OSError with the kernel's errno."""
        descriptor = os.open(self.path(name), os.O_WRONLY)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)


def _is_live() -> bool:
    """Whether this is neither a chroot, nor a container, nor the sandbox of a package manager.

    In those, sysfs shows the hardware of the build machine, not of the one that will boot. The last
    two have the same root as their first process, but that is not the machine's first process.
    """
    try:
        ours, first = Path("/").stat(), Path("/proc/1/root").stat()
    except OSError:
        return False
    try:
        processes = Path("/proc/self/ns/pid").stat().st_ino
    except FileNotFoundError:  # a kernel without CONFIG_PID_NS has no containers
        processes = _FIRST_PROCESSES
    same_root = (ours.st_dev, ours.st_ino) == (first.st_dev, first.st_ino)
    return same_root and processes == _FIRST_PROCESSES
