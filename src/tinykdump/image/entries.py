# SPDX-License-Identifier: GPL-2.0-or-later
"""The plan of an image: its files, directories and links. Pure: values in, values out."""

import hashlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from tinykdump.errors import TinykdumpError

_PAGE = 4096  # bytes


@dataclass(frozen=True)
class Entry:
    """One file, directory or link of the image."""

    path: str  # absolute, in the image
    mode: int  # st_mode: type and permissions
    content: bytes = b""  # of a file, or the target of a link
    source: str = ""  # the file on the host that it is made from; empty: made by tinykdump

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


def file(path: str, content: bytes, *, source: str = "", mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | mode, content, source)


def link(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def directory(path: str) -> Entry:
    """A directory."""
    return Entry(path, stat.S_IFDIR | 0o755)


def plan(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Add the parent directories of ``entries`` and sort them all, parents first.

    Equal entries are merged. Raises TinykdumpError when two different ones have the same path.
    """
    found: dict[str, Entry] = {}

    def add(entry: Entry) -> None:
        old = found.setdefault(entry.path, entry)
        if (old.mode, old.content) != (entry.mode, entry.content):
            raise TinykdumpError(
                f"{old.source or 'tinykdump'} and {entry.source or 'tinykdump'} "
                f"both want {entry.path} in the image",
                "remove one of the two packages, the script or the module",
            )

    for entry in entries:
        for parent in PurePosixPath(entry.path).parents:
            if str(parent) != "/":
                add(directory(str(parent)))
        add(entry)
    return tuple(found[path] for path in sorted(found))


def unpacked_size(entries: Iterable[Entry]) -> int:
    """Bytes of memory that the unpacked files take, in whole pages."""
    return sum(
        -(-len(entry.content) // _PAGE) * _PAGE for entry in entries if stat.S_ISREG(entry.mode)
    )
