# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns a plan into an image file: stage a tree, pack it with GNU cpio, compress it."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tinykdump import files
from tinykdump.errors import TinykdumpError
from tinykdump.image.entries import Entry
from tinykdump.run import run

# By the kernel's option for each (CONFIG_RD_*), best first. zstd and xz get a window of 128 KiB:
# the crash kernel has to allocate it beside the packed and the unpacked image. (With 1 MiB, the
# packed image would be 2 % smaller.) In xz files, the kernel supports only the check CRC32
# (lib/xz/Kconfig). zstd -9 takes 60 % longer for 0.4 % less; -4 half the time, for 5 % more.
COMPRESSORS: dict[str, Sequence[str]] = {
    "ZSTD": ("zstd", "-q", "-6", "--zstd=wlog=17", "-c"),
    "XZ": ("xz", "--check=crc32", "--lzma2=preset=6,dict=128KiB", "-c"),
    "GZIP": ("gzip", "-9", "-n", "-c"),
}


def compressor(kernel_config: str) -> str:
    """The best compression that a kernel with that .config text can unpack.

    It is gzip if the configuration is unknown: the kernels of all distributions support that.
    """
    lines = set(kernel_config.splitlines())
    return next((name for name in COMPRESSORS if f"CONFIG_RD_{name}=y" in lines), "GZIP")


@contextmanager
def staged(entries: Iterable[Entry], below: Path) -> Iterator[Path]:
    """Write the planned tree to a new private directory, and remove it at the end.

    Also removes the trees of killed builds: only one build runs at a time.
    """
    files.private(below)
    for left in below.glob("stage-*"):
        shutil.rmtree(left)
    top = Path(tempfile.mkdtemp(prefix="stage-", dir=below))
    try:
        for entry in entries:
            with files.naming(below):
                _write(entry, top / entry.path.lstrip("/"))
        yield top
    finally:
        shutil.rmtree(top)


def _write(entry: Entry, path: Path) -> None:
    if stat.S_ISDIR(entry.mode):
        path.mkdir()
    elif stat.S_ISLNK(entry.mode):
        path.symlink_to(entry.content.decode())
    else:
        path.write_bytes(entry.content)
    if not stat.S_ISLNK(entry.mode):
        path.chmod(stat.S_IMODE(entry.mode))


def pack(entries: Sequence[Entry], top: Path, compression: str) -> bytes:
    """The packed image of a staged tree; the same plan gives the same bytes.

    The kernel unpacks only the format newc
    (Documentation/driver-api/early-userspace/buffer-format.rst).
    """
    for entry in reversed(entries):  # children first: a new child changes its parent's time
        os.utime(top / entry.path.lstrip("/"), (0, 0), follow_symlinks=False)
    names = "\0".join(entry.path.lstrip("/") for entry in entries) + "\0"
    archive = run(
        ["cpio", "--create", "--null", "--format=newc", "--reproducible", "--owner=+0:+0",
         "--quiet"],
        stdin=names.encode(), cwd=top, hint="check that /run has room",
    ).stdout  # fmt: skip
    if not archive:
        raise TinykdumpError("cpio packed nothing", "check that /run has room")
    return run(COMPRESSORS[compression], stdin=archive).stdout
