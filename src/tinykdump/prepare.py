# SPDX-License-Identifier: GPL-2.0-or-later
"""Prepares a stick: partitions and formats a disk behind USB, or changes a label.

util-linux and the programs of each file system do the work. No other disk is opened for writing.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tinykdump import disks, files, hardware, mounts, room, state, stick
from tinykdump.config import Config
from tinykdump.disks import Disk
from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import AUTO, FILESYSTEMS, MADE, command, is_mounted_by
from tinykdump.host import Host
from tinykdump.image.module_tree import ModuleTree
from tinykdump.run import is_installed, run

README = "README.txt"


@dataclass(frozen=True)
class Plan:
    """What is to be done to which device; nothing is changed yet."""

    device: Path  # that the user named
    disk: Disk  # or a part of one, if its file system stays
    label: str
    filesystem: str  # its type
    keeps_data: bool
    medium: str  # the kernel's number of the medium, which no other one ever gets


def candidates(host: Host) -> tuple[Disk, ...]:
    """The disks behind USB that have a medium. Raises TinykdumpError."""
    usb = stick.behind_usb(host)
    return tuple(disk for disk in _disks(host) if disk.path in usb)


def plan(
    host: Host, config: Config, device: Path, *, filesystem: str = "", keep_data: bool = False
) -> Plan:
    """Check that ``device`` can become a stick. Raises TinykdumpError.

    ``filesystem`` is the type to make; empty: the best one for this disk and kernel.
    """
    node = host.resolve(device) or device
    disk = disks.chosen(_disks(host), node, stick.behind_usb(host))
    # Documentation/ABI/stable/sysfs-block; since Linux 5.15.
    medium = host.text(f"/sys/class/block/{disk.path.name}/diskseq") or ""
    usable = _usable(host, config)
    if keep_data:
        disk = disks.only_filesystem(disk)
        kind = disk.filesystem
        if not is_mounted_by(kind, usable) or not FILESYSTEMS[kind].relabel:
            raise TinykdumpError(
                f"{disk.path} has {kind}, which does not suit dumps",
                f"prepare it without --keep-data; suitable are {', '.join(usable)}",
            )
        _check_unused(host, disk)
        return Plan(node, disk, _label(config, kind), kind, keeps_data=True, medium=medium)
    disks.whole(disk)
    _check_unused(host, disk)
    kind = filesystem or disks.default_filesystem(disk.size, usable)
    if kind not in usable:
        raise TinykdumpError(
            f"the crash kernel cannot mount {kind}", f"choose one of {', '.join(usable)}"
        )
    return Plan(node, disk, _label(config, kind), kind, keeps_data=False, medium=medium)


def _disks(host: Host) -> tuple[Disk, ...]:
    tags = {device: stick.probe(host, device) for device in stick.behind_usb(host)}
    return disks.parse(_listed(), tags)


def _listed() -> bytes:
    argv = ["lsblk", "--json", "--bytes", "--output", disks.COLUMNS]
    return run(argv, hint="update util-linux to 2.37 or later").stdout


def _usable(host: Host, config: Config) -> tuple[str, ...]:
    """The types of file system that the crash kernel mounts. Raises TinykdumpError if none."""
    # The next image gets what a stick has that is plugged in.
    named = [name for name in config.filesystems if name != AUTO]
    names = tuple(dict.fromkeys((*named, *MADE) if AUTO in config.filesystems else named))
    try:
        tree = ModuleTree(host, state.crash_kernel(host, config.kernel, host.running_kernel()))
    except TinykdumpError:  # it is prepared for another machine
        return names
    usable = tuple(name for name in names if all(map(tree.has, FILESYSTEMS[name].modules)))
    if not usable:
        raise TinykdumpError(
            f"kernel {tree.kernel.kver} has no driver for {', '.join(names)}",
            "set filesystems = auto in /etc/default/tinykdump",
        )
    return usable


def _label(config: Config, kind: str) -> str:
    """The label of the configuration. Raises TinykdumpError if that type cannot have it."""
    if config.target.tag != "LABEL":
        raise TinykdumpError(
            f"the dump target is {config.target}, but prepare sets a label",
            "set target = LABEL=name in /etc/default/tinykdump",
        )
    label, longest = config.target.value, FILESYSTEMS[kind].longest_label
    if len(label) > longest:
        raise TinykdumpError(
            f"the label {label} has more than {longest} characters, the limit of {kind}",
            "set a shorter target = in /etc/default/tinykdump",
        )
    if wrong := next((each for each in label if each in FILESYSTEMS[kind].not_in_labels), ""):
        raise TinykdumpError(
            f"the label {label} has a {wrong}, which no label of {kind} can have",
            "set another target = in /etc/default/tinykdump, or use another --filesystem",
        )
    return label


def _check_unused(host: Host, disk: Disk) -> None:
    """Raise TinykdumpError if the kernel or another program holds the disk or a part of it.

    lsblk does not show every use: of a file system on several disks it shows one disk as mounted.
    """
    for each in disk.everything():
        try:
            os.close(os.open(host.path(each.path), os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK))
        except OSError as error:
            raise TinykdumpError(
                f"{each.path}: {error.strerror}", "close what uses it, or plug the stick in again"
            ) from None


def check_programs(planned: Plan) -> None:
    """Raise TinykdumpError if a program that the plan needs is not installed."""
    known = FILESYSTEMS[planned.filesystem]
    needed = {(known.relabel if planned.keeps_data else known.make)[0]: known.package}
    if not planned.keeps_data:
        needed |= {"wipefs": "util-linux", "sfdisk": "util-linux (on Debian: fdisk)"}
    for program, package in needed.items():
        if not is_installed(program):
            raise TinykdumpError(f"{program} is not installed", f"install {package}")


def warnings(host: Host, config: Config, planned: Plan) -> Iterator[str]:
    """What the user should know before: one line each."""
    dump = stick.expected_dump(host, config.level)
    size: int | None = planned.disk.size
    if planned.keeps_data:
        size = stick.look(host, planned.disk.path, planned.filesystem).free
    if size is not None and size < dump:
        yield (f"{planned.disk.path} has {room.amount(size)}{' free' * planned.keeps_data}, but a "
               f"dump takes up to {room.amount(dump)} (use a larger stick)")  # fmt: skip


def carry_out(host: Host, config: Config, planned: Plan) -> Path:
    """Do what is planned; returns the device that has the file system. Raises TinykdumpError.

    Everything is checked again, because a disk can have been replaced while the user was asked.
    """
    again = plan(
        host, config, planned.device, filesystem=planned.filesystem,
        keep_data=planned.keeps_data,
    )  # fmt: skip
    if again != planned:
        raise TinykdumpError(
            f"{planned.disk.path} is not what it was before the question", "run it again"
        )
    known = FILESYSTEMS[planned.filesystem]
    with _locked(host, planned.disk):
        if planned.keeps_data:
            device = planned.disk.path
            words = known.relabel
        else:
            device = _partition(host, planned)
            words = known.make
        run(command(words, host.path(device), planned.label), hint="run it again")
        if not planned.keeps_data:
            _write_readme(host, config, planned, device)
    return device


@contextmanager
def _locked(host: Host, disk: Disk) -> Iterator[None]:
    """Keep udev and automounters away from a disk (systemd's "Locking Block Device Access").

    Raises TinykdumpError if another program has locked it.
    """
    descriptor = os.open(host.path(disk.path), os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise TinykdumpError(
            f"another program works on {disk.path}", "run it again in a moment"
        ) from None
    finally:
        os.close(descriptor)


def _partition(host: Host, planned: Plan) -> Path:
    """Make one partition of a disk; returns its device. Raises TinykdumpError."""
    disk = planned.disk
    old = [host.path(each.path) for each in reversed(tuple(disk.everything()))]
    run(["wipefs", "--all", "--quiet", *old], hint="run it again")
    text = disks.table(disk.size, planned.filesystem)
    options = ["--quiet", "--wipe", "always", "--wipe-partitions", "always"]
    run(["sfdisk", *options, host.path(disk.path)], stdin=text.encode(), hint="run it again")
    parts = [part for each in _disks(host) if each.path == disk.path for part in each.parts]
    if len(parts) != 1:  # it can have been pulled out
        raise TinykdumpError(
            f"{disk.path} has no partition after partitioning it", "plug it in again, and try again"
        )
    return parts[0].path


def _write_readme(host: Host, config: Config, planned: Plan, device: Path) -> None:
    """Tell whoever finds the stick what it is."""
    text = readme(
        host.text("/proc/sys/kernel/hostname") or "unknown",
        hardware.machine_name(host),
        encrypted=config.encrypt,
    )
    with mounts.mounted(host, device, planned.filesystem, below=state.RUNTIME) as place:
        with (place / README).open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        files.sync_directory(place)


def readme(hostname: str, machine: str, *, encrypted: bool) -> str:
    """The text of README. It names no secret."""
    kept = (
        "They are encrypted. Only who has the secret key can read them."
        if encrypted
        else "They are NOT ENCRYPTED: they hold what was in the memory of that computer."
    )
    return f"""\
This USB stick is for crash dumps of a computer.

It was prepared by the program tinykdump on the computer {hostname}
and belongs to whoever runs that computer. Its dumps are in the directory
tinykdump/{machine}; other computers can use this stick, too.

When the kernel of a computer crashes, tinykdump saves the kernel's log and
memory here, so that the cause can be found.
{kept}

If you found this stick: please give it back. Deleting what is on it may
destroy what somebody needs.
If it is yours: leave it plugged in. tinykdump(8) says how to restore a dump:
tinykdump restore.
"""
