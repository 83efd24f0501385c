# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes, reads and writes images of USB sticks, without mounting anything."""

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FileSystem = Literal["vfat", "exfat", "ext4"]

# Start of the first partition, in bytes, as partitioning programs choose it.
PARTITION_OFFSET = 1 << 20


@dataclass(frozen=True)
class Image:
    path: Path
    filesystem: FileSystem
    # Start of the file system, in bytes; 0 if the stick has no partitions.
    offset: int = 0


def make(
    path: Path,
    *,
    filesystem: FileSystem = "vfat",
    label: str = "TINYKDUMP",
    size_mib: int = 512,
    partitioned: bool = False,
    sector: int = 512,
) -> Image:
    """Make a sparse image with an empty file system, in a partition or on the whole stick.

    `sector` is the size of the stick's sectors in bytes, which only FAT without partitions has.

    exFAT can only be on the whole stick, and only a guest can read it: nothing here mounts.
    """
    if sector != 512 and (partitioned or filesystem != "vfat"):
        raise ValueError("only FAT on the whole stick can have other sectors")
    if partitioned and filesystem == "exfat":
        raise ValueError("mkfs.exfat cannot make a file system in a part of a file")
    image = Image(path, filesystem, PARTITION_OFFSET if partitioned else 0)
    with path.open("wb") as file:
        file.truncate(size_mib << 20)
    if partitioned:
        kind = {"vfat": "c", "ext4": "83"}[filesystem]
        table = f"label: dos\nstart={PARTITION_OFFSET // 512}, type={kind}\n"
        _run(["sfdisk", "--quiet", str(path)], table.encode())
    size_kib = (size_mib << 10) - image.offset // 1024
    _run(_format_command(image, label, size_kib, sector))
    return image


def _format_command(image: Image, label: str, size_kib: int, sector: int) -> list[str]:
    if image.filesystem == "vfat":
        # fmt: off
        return ["mkfs.vfat", "-F", "32", "-S", str(sector), "-n", label,
                "--offset", str(image.offset // 512), str(image.path), str(size_kib)]
        # fmt: on
    if image.filesystem == "exfat":
        return ["mkfs.exfat", "-L", label, str(image.path)]
    # fmt: off
    return ["mke2fs", "-q", "-F", "-t", "ext4", "-L", label,
            "-E", f"offset={image.offset},lazy_itable_init=0,lazy_journal_init=0",
            str(image.path), f"{size_kib}k"]
    # fmt: on


def files(image: Image) -> list[str]:
    """The relative paths of the files on the stick, sorted."""
    with tempfile.TemporaryDirectory() as directory:
        extract(image, Path(directory))
        found = (path for path in Path(directory).rglob("*") if path.is_file())
        return sorted(str(path.relative_to(directory)) for path in found)


def extract(image: Image, target: Path, *, torn: bool = False) -> None:
    """Copy all files on the stick to a directory; as much as can be read of a torn FAT."""
    target.mkdir(parents=True, exist_ok=True)
    if image.filesystem == "vfat":
        # -n: never ask; -m: keep the times; -s: recursive.
        _run(["mcopy", "-n", "-m", "-s", "-i", _mtools(image), "::/", str(target)], check=not torn)
    else:
        _debugfs(image, f'rdump / "{target}"')


def read(image: Image, name: str) -> bytes:
    if image.filesystem == "vfat":
        return _run(["mtype", "-i", _mtools(image), f"::/{name}"])
    return _debugfs(image, f'cat "/{name}"')


def write(image: Image, name: str, content: bytes) -> None:
    """Write or replace a file on the stick; its directory must exist."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        if image.filesystem == "vfat":
            _run(["mcopy", "-o", "-i", _mtools(image), file.name, f"::/{name}"])
        else:
            _debugfs(image, f'rm "/{name}"', "-w", check=False)
            _debugfs(image, f'write {file.name} "/{name}"', "-w")


def make_directory(image: Image, name: str) -> None:
    if image.filesystem == "vfat":
        _run(["mmd", "-i", _mtools(image), f"::/{name}"])
    else:
        _debugfs(image, f'mkdir "/{name}"', "-w")


def _mtools(image: Image) -> str:
    return f"{image.path}@@{image.offset}"


def _debugfs(image: Image, request: str, *options: str, check: bool = True) -> bytes:
    # debugfs always exits with 0. Its errors are on stderr, after the line with its version.
    command = ["debugfs", *options, "-R", request, f"{image.path}?offset={image.offset}"]
    done = subprocess.run(command, check=True, capture_output=True)
    complaints = done.stderr.decode().splitlines()[1:]
    if check and complaints:
        raise RuntimeError(f"debugfs {request}: {' '.join(complaints)}")
    return done.stdout


def _run(command: Sequence[str], stdin: bytes = b"", *, check: bool = True) -> bytes:
    done = subprocess.run(command, check=False, input=stdin, capture_output=True)
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}: {said}")
    return done.stdout
