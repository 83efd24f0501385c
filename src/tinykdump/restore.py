# SPDX-License-Identifier: GPL-2.0-or-later
"""Restore a dump from a stick: check it, decrypt it and write a vmcore.

A dump can be cut off, because power was lost or the stick was pulled, and it can be forged.
tinykdump restores as much of each stream as it can, and marks an incomplete file in its name. It
opens only regular files with the names that the crash side uses, and never follows a link.
"""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from tinykdump import keys
from tinykdump.dump import README, STREAMS, SUMS, parse_part, parse_sums, part_name
from tinykdump.errors import TinykdumpError
from tinykdump.flattened import Parser
from tinykdump.memory import MIB

if TYPE_CHECKING:
    import gnupg

_NAME_ONE = "name a directory tinykdump/MACHINE/TIME on the stick"
_CHUNK = 1 << 20  # bytes

# Bytes added to the end of an incomplete vmcore. makedumpfile writes the description of a page
# before the page, in pieces of 64 KiB, so the last description can point beyond the end. drgn and
# other programs that map the file then read zeros instead of being killed.
_PADDING = 1 << 20

# python-gnupg's statuses for a message that is damaged or cut off.
_DAMAGED = ("", "no data was provided", "decryption failed", "decryption incomplete")

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


@dataclass(frozen=True)
class Dump:
    """The contents of a dump's directory."""

    streams: tuple[Stream, ...]
    ignored: tuple[str, ...]  # names that are not part of a dump; they can contain any character


@dataclass(frozen=True)
class Restored:
    """The result of restoring a dump."""

    files: tuple[Path, ...]  # written
    ignored: tuple[str, ...]  # names on the stick that are not part of a dump
    failures: tuple[TinykdumpError, ...]  # what is missing or incomplete; empty: success


def look(directory: Path) -> Dump:
    """Read a dump's directory. Raises TinykdumpError if it is not one.

    Anyone could have changed SHA256SUMS on the stick. It only tells which parts exist and which of
    them are complete.
    """
    try:
        there = sorted(entry.name for entry in directory.iterdir())
    except OSError as error:
        raise TinykdumpError(f"{directory}: {error.strerror}", _NAME_ONE) from None
    listed = _sums(directory)
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
    return Dump(streams, tuple(name for name in there if name not in (*taken, SUMS, README)))


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


def _sums(directory: Path) -> dict[str, set[str]]:
    """The sums of each name in SHA256SUMS. What cannot be read or parsed is left out.

    64 KiB hold the sums of a dump of two terabytes on FAT.
    """
    try:
        with open_part(directory / SUMS) as handle:
            text = handle.read(1 << 16).decode(errors="replace")
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
                    while chunk := handle.read(_CHUNK):
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


class SecretKeyError(TinykdumpError):
    """A secret key that is missing or cannot be used; the dump itself may be intact."""


class Sink(Protocol):
    """The destination of the restored bytes."""

    def write(self, data: bytes, /) -> int:
        """Take some bytes. Raises OSError if writing fails, TinykdumpError for bad data."""


class InOrder:
    """Writes a file from the flattened format, as makedumpfile -R does.

    makedumpfile itself would wait forever for the rest of a stream that was cut off.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.parser = Parser()

    def write(self, data: bytes) -> int:
        """Write each piece at its offset. Raises TinykdumpError for any other format."""
        try:
            for place, piece in self.parser.feed(data):
                self._file.seek(place)
                self._file.write(piece)
        except ValueError as error:
            raise TinykdumpError(f"its contents are damaged: {error}", "copy the dump again"
                                 ) from None  # fmt: skip
        return len(data)


def decrypt(stream: Stream, source: Source, keyring: "gnupg.GPG", sink: Sink) -> None:
    """Write the contents of a stream to ``sink``. Raises TinykdumpError or OSError.

    What gpg decrypts before an error is written, too.
    """
    if not stream.encrypted:
        while chunk := source.read(_CHUNK):
            sink.write(chunk)
        return
    # python-gnupg calls read and take on its own threads, where an exception would be lost.
    failures: list[TinykdumpError | OSError] = []
    taken = 0

    class Input:
        def read(self, size: int) -> bytes:
            return b"" if failures else source.read(size)

    def take(chunk: bytes) -> bool:
        nonlocal taken
        taken += len(chunk)
        try:
            if taken > stream.size:  # impossible: gpg does not compress on the crash side
                raise TinykdumpError("it contains more than its size", "copy the dump again")
            if chunk and not failures:
                sink.write(chunk)
        except (TinykdumpError, OSError) as error:
            failures.append(error)
        return False  # python-gnupg must not keep the chunk in memory

    keyring.buffer_size = _CHUNK
    keyring.on_data = take
    result = keyring.decrypt_file(Input(), always_trust=True)
    if failures:
        raise failures[0]
    if not result.ok:
        message = f"gpg cannot decrypt it: {result.status or 'unknown error'}"
        if result.status in _DAMAGED:
            raise TinykdumpError(message, "copy the dump from the stick again")
        raise SecretKeyError(
            message,
            f"import the secret key, or name its directory with --keys (now: {keyring.gnupghome})",
        )


def restore(directory: Path, output: Path, home: Path, *, plain: bool = False) -> Restored:
    """Write dmesg.txt and vmcore of a dump to ``output``, readable by the user only.

    A file that is incomplete or that does not match its sum gets a name like vmcore-incomplete.
    ``home`` is the GnuPG directory with the secret key. A stream that is not encrypted is refused
    unless ``plain`` is set, because anyone who had the stick could have written it. Raises
    TinykdumpError or OSError if nothing at all can be restored.
    """
    dump = look(directory)
    output.mkdir(parents=True, exist_ok=True)
    for stream in dump.streams:
        _refuse_to_overwrite(output / stream.file)
    files, failures = [], []
    for stream in dump.streams:
        try:
            if not stream.encrypted and not plain:
                raise TinykdumpError(
                    f"{stream.file} is not encrypted: anyone who had the stick can have written it",
                    "use --plain if the machine does not encrypt its dumps",
                )
            file, problem = _write(stream, output / stream.file, home)
        except TinykdumpError as error:
            failures.append(error)
            continue
        files.append(file)
        failures.extend([problem] if problem else [])
    if all(stream.file != "vmcore" for stream in dump.streams):
        why = "if crash-kernel.txt exists, it says why"
        failures.append(TinykdumpError(f"{directory} has no vmcore", why))
    return Restored(tuple(files), dump.ignored, tuple(failures))


def _incomplete(file: Path) -> Path:
    return file.with_stem(f"{file.stem}-incomplete")


def _refuse_to_overwrite(file: Path) -> None:
    for name in (file, _incomplete(file)):
        if os.path.lexists(name):
            raise TinykdumpError(f"{name} exists", "name another directory with --output")


def _write(stream: Stream, file: Path, home: Path) -> tuple[Path, TinykdumpError | None]:
    """Restore one stream. Returns the file, and what makes it incomplete, if anything.

    Raises TinykdumpError if nothing of the stream can be restored.
    """
    if not stream.parts:
        raise TinykdumpError(
            f"cannot restore {file.name}: {stream.missing} is missing",
            "copy the whole directory from the stick; "
            "a later crash may have deleted it to make room",
        )
    _check_room(stream, file)
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        problem = _fill(stream, partial, home)
        if problem:
            file = _incomplete(file)
            problem = TinykdumpError(f"{stream.file} is not complete: {problem.message}",
                                     f"{problem.hint}; {file} has what could be read")  # fmt: skip
        partial.rename(file)
        _sync(file.parent)
    except OSError as error:
        raise TinykdumpError(f"{file}: {error.strerror}", "check its free space") from None
    finally:
        partial.unlink(missing_ok=True)
    return file, problem


def _check_room(stream: Stream, file: Path) -> None:
    """Raise TinykdumpError if there is too little space. A file is never larger than its parts."""
    free = shutil.disk_usage(file.parent).free
    if free < stream.size:
        raise TinykdumpError(
            f"cannot restore {file.name}: {file.parent} has {free // MIB} MiB free, "
            f"{-(-stream.size // MIB)} MiB are needed",
            "name another directory with --output",
        )


def _fill(stream: Stream, path: Path, home: Path) -> TinykdumpError | None:
    """Restore a stream to a new file, and sync it. Returns what makes it incomplete, if anything.

    Raises OSError if the file cannot be written, TinykdumpError if nothing was restored.
    """
    source = Source(stream)
    # Others must never be able to read it, not even before it is complete.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        problem = _copy(stream, source, home, file)
        file.flush()
        if problem and stream.name == "vmcore.flat" and file.tell():
            file.truncate(file.seek(0, os.SEEK_END) + _PADDING)
        os.fsync(file.fileno())
        if not os.fstat(file.fileno()).st_size:
            problem = problem or TinykdumpError("it is empty", "copy the dump again")
            raise TinykdumpError(f"cannot restore {stream.file}: {problem.message}", problem.hint)
    return problem


def _copy(stream: Stream, source: Source, home: Path, file: BinaryIO) -> TinykdumpError | None:
    """Restore a stream to an open file. Returns what makes it incomplete, if anything.

    A damaged part explains the errors of gpg and of the flattened format that follow from it, so it
    is reported instead of them. If neither of them misses anything, a part that is listed but
    missing belonged to an earlier attempt of the crash kernel. Raises OSError.
    """
    in_order = InOrder(file) if stream.name == "vmcore.flat" else None
    problem = None
    try:
        decrypt(stream, source, keys.gpg(home), in_order or file)
        if in_order and not in_order.parser.ended:
            problem = TinykdumpError("it is cut off", "the crash kernel did not finish writing it")
    except SecretKeyError as error:
        return error
    except TinykdumpError as error:
        problem = error
    if source.problem:
        return source.problem
    if stream.missing and (problem or not (stream.encrypted or in_order)):
        return TinykdumpError(f"{stream.missing} is missing",
                              "copy the whole directory from the stick")  # fmt: skip
    return problem


def _sync(directory: Path) -> None:
    """Sync a directory, so that the names in it are on the disk. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
