# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a dump's directory: its streams, and the bytes of their parts, compared with their sums.

A dump can be cut off, because power was lost or the stick was pulled, and it can be forged. Only
regular files with the names that the crash side uses are opened, and no link is followed.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tinykdump.dump import (
    README,
    STAGES,
    STREAMS,
    SUMS,
    TEST,
    parse_part,
    parse_sums,
    parse_test,
    part_name,
)
from tinykdump.errors import TinykdumpError

_NAME_ONE = "name a directory tinykdump/MACHINE/TIME on the stick"

# Bytes that are read at a time, less than a pipe of gpg takes: gpg decrypts what is in it while the
# sum of the next ones is calculated.
CHUNK = 1 << 17

# Bytes of SHA256SUMS that are read for each part that is there, and in any case: a line has a sum,
# two spaces, a name and the line end, and a name can have two sums.
_LINES = 256
_LEAST = 1 << 16

# A hostile stick can contain links to files of this machine, and pipes that never end.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True)
class Part:
    """One file of a stream, and its sums in SHA256SUMS: none if it is incomplete."""

    path: Path
    sums: frozenset[str]


@dataclass(frozen=True)
class Stream:
    """What the crash side saved under one name, in parts."""

    name: str  # one of STREAMS
    encrypted: bool
    parts: tuple[Part, ...]  # up to the first missing one
    missing: str  # name of the first missing part; empty: none is known to be missing
    size: int  # bytes of all parts

    @property
    def file(self) -> str:
        """The name of the restored file."""
        return STREAMS[self.name]

    def head(self, size: int) -> bytes:
        """At most ``size`` bytes from the start. Raises OSError."""
        with open_part(self.parts[0].path) as handle:
            return handle.read(size)


@dataclass(frozen=True)
class Dump:
    """The contents of a dump's directory."""

    directory: Path
    streams: tuple[Stream, ...]
    ignored: tuple[str, ...]  # names that are not part of a dump; they can contain any character


def look(directory: Path) -> Dump:
    """Read a dump's directory. Raises TinykdumpError if it is not one.

    Anyone could have changed SHA256SUMS on the stick. It only tells which parts exist and which of
    them are complete.
    """
    try:
        there = sorted(entry.name for entry in directory.iterdir())
    except OSError as error:
        raise TinykdumpError(f"{directory}: {error.strerror}", _NAME_ONE) from None
    listed = _sums(directory, sum(parse_part(name) is not None for name in there))
    known: dict[tuple[str, bool], set[int]] = {}
    for name in (*there, *listed):
        if found := parse_part(name):
            known.setdefault(found[:2], set()).add(found[2])
    if not known:
        what = "contains no saved data" if SUMS in there else f"is not a dump: it has no {SUMS}"
        raise TinykdumpError(f"{directory} {what}", _NAME_ONE)
    streams = _chosen(
        _stream(directory, name, encrypted, known[name, encrypted], listed)
        for name in STREAMS
        for encrypted in (True, False)
        if (name, encrypted) in known
    )
    taken = {part.path.name for stream in streams for part in stream.parts}
    ignored = tuple(name for name in there if name not in (*taken, SUMS, README, STAGES, TEST))
    return Dump(directory, streams, ignored)


def test(directory: Path) -> tuple[str, int | None] | None:
    """The id of the test that a dump is of, and when it was saved (dump.parse_test); None: neither.

    Anyone can have written it.
    """
    try:
        with open_part(directory / TEST) as handle:
            return parse_test(handle.read(64).decode(errors="replace"))
    except OSError:
        return None


def _chosen(found: Iterable[Stream]) -> tuple[Stream, ...]:
    """One stream for each restored file. A crash kernel writes no more than one.

    Prefer a stream that has parts to one that is only listed, then an encrypted one.
    """
    streams: dict[str, Stream] = {}
    for stream in sorted(found, key=lambda each: (not each.parts, not each.encrypted)):
        streams.setdefault(stream.file, stream)
    return tuple(streams[file] for file in dict.fromkeys(STREAMS.values()) if file in streams)


def _stream(
    directory: Path, name: str, encrypted: bool, numbers: set[int], listed: dict[str, set[str]]
) -> Stream:
    parts: list[Part] = []
    size = 0
    for number in range(len(numbers) + 1):
        file = part_name(name, encrypted, number)
        path = directory / file
        if not os.path.lexists(path):
            is_last = number > max(numbers)
            return Stream(name, encrypted, tuple(parts), "" if is_last else file, size)
        parts.append(Part(path, frozenset(listed.get(file, ()))))
        size += path.lstat().st_size
    raise AssertionError("one number of the range must be missing from the set")


def _sums(directory: Path, count: int) -> dict[str, set[str]]:
    """The sums of each name in SHA256SUMS. What cannot be read or parsed is left out.

    So is what comes after the sums of the ``count`` parts that are there.
    """
    try:
        with open_part(directory / SUMS) as handle:
            text = handle.read(max(_LEAST, count * _LINES)).decode(errors="replace")
    except OSError:
        return {}
    return parse_sums(text)


def open_part(path: Path) -> BinaryIO:
    """Open a regular file. Raises OSError for anything else, without opening it."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    handle = os.fdopen(os.open(path, _READ), "rb")
    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):  # it was replaced meanwhile
        handle.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return handle


class Source:
    """Reads the parts of a stream as one file, and compares each part with its sum at its end."""

    def __init__(self, stream: Stream) -> None:
        self.problem: TinykdumpError | None = None  # the first one that was found
        self._chunks = self._read_all(stream)
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes; b"" at the end."""
        if not self._rest:
            self._rest = next(self._chunks, b"")
        taken = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(taken) :]
        return taken

    def _read_all(self, stream: Stream) -> Iterator[bytes]:
        for part in stream.parts:
            digest = hashlib.sha256()
            try:
                with open_part(part.path) as handle:
                    while chunk := handle.read(CHUNK):
                        digest.update(chunk)
                        yield chunk
            except OSError as error:
                self._note(f"{part.path}: {error.strerror}", "check the stick")
                return
            if not part.sums:
                self._note(f"{part.path} is not listed in {SUMS}",
                           "the crash kernel did not finish writing it")  # fmt: skip
            elif digest.hexdigest() not in part.sums:
                self._note(f"{part.path} is damaged: its SHA-256 differs from {SUMS}",
                           "copy it from the stick again")  # fmt: skip

    def _note(self, message: str, hint: str) -> None:
        self.problem = self.problem or TinykdumpError(message, hint)
