# SPDX-License-Identifier: GPL-2.0-or-later
"""The current mounts, from /proc/self/mountinfo, and mounts of our own."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tinykdump.files import private
from tinykdump.filesystems import FILESYSTEMS
from tinykdump.host import Host
from tinykdump.run import run


@dataclass(frozen=True)
class _Mount:
    device: Path
    root: str  # of the mount in its file system: others than / are bind mounts and subvolumes
    place: Path


def _mounts(host: Host) -> tuple[_Mount, ...]:
    """The mounted block devices (proc(5), /proc/pid/mountinfo)."""
    found = []
    for line in (host.text("/proc/self/mountinfo") or "").splitlines():
        mount, _, source = line.partition(" - ")
        fields, sources = mount.split(), source.split()
        if len(fields) > 4 and len(sources) > 1 and sources[1].startswith("/"):
            # Spaces and the like are octal there.
            place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
            device = host.resolve(sources[1]) or Path(sources[1])
            found.append(_Mount(device, fields[3], Path(place)))
    return tuple(found)


def root_tags(host: Host) -> tuple[str, ...]:
    """LABEL=... and UUID=... of the block device that holds the running root, from udev's links."""
    devices = {mount.device for mount in _mounts(host) if mount.place == Path("/")}
    return tuple(
        f"{tag}={link.name}"
        for tag in ("LABEL", "UUID")
        for link in host.children(f"/dev/disk/by-{tag.lower()}")
        if host.resolve(link) in devices
    )


def devices(host: Host) -> tuple[tuple[Path, Path], ...]:
    """Each block device that is mounted as a whole, and its first mount point."""
    found: dict[Path, Path] = {}
    for mount in _mounts(host):
        if mount.root == "/":
            found.setdefault(mount.device, mount.place)
    return tuple(found.items())


def mount_point(host: Host, device: Path) -> Path | None:
    """The mount point of the whole device, or None."""
    mounts = (mount for mount in _mounts(host) if mount.device == device and mount.root == "/")
    return next((mount.place for mount in mounts), None)


@contextmanager
def mounted(
    host: Host, device: Path, filesystem: str, *, below: Path, read_only: bool = False
) -> Iterator[Path]:
    """Mount a device on a new directory in ``below``, which only root can enter, for the block.

    Nothing on it can be run. With ``read_only``, nothing is written to it, not even its journal.
    Raises TinykdumpError if it cannot be mounted or unmounted.
    """
    top = host.path(below)
    private(top)
    place = Path(tempfile.mkdtemp(prefix="stick-", dir=top))
    known = FILESYSTEMS.get(filesystem)
    unwritten = (*(known.no_replay if known else ()), "ro") if read_only else ()
    safe = ",".join(("nosuid", "nodev", "noexec", *unwritten))
    try:
        run(["mount", "-t", filesystem, "-o", safe, host.path(device), place],
            hint="check the stick; its file system may be damaged")  # fmt: skip
        yield place
    finally:
        try:
            place.rmdir()
        except OSError:  # busy: it is mounted, also if Ctrl-C came while mount(8) was ending
            run(["umount", place], hint="close what uses the stick")
            place.rmdir()
