# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes one stream of a dump to a file, which has its final name only when it is on the disk.

If it is incomplete, its final name says so: vmcore-incomplete.
"""

import errno
import filecmp
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tinykdump.decrypt import SecretKeyError, Sink, decrypt, keyring_for
from tinykdump.errors import TinykdumpError
from tinykdump.files import sync_directory
from tinykdump.flattened import Parser
from tinykdump.memory import MIB
from tinykdump.parts import Source, Stream

# Bytes added to the end of an incomplete vmcore. makedumpfile writes the description of a page
# before the page, in pieces of 64 KiB, so the last description can point beyond the end. drgn and
# other programs that map the file then read zeros instead of being killed.
_PADDING = 1 << 20

# Each jump to another place in the file can take one more block of the disk. makedumpfile jumps
# once in 64 KiB or less often; who forges a dump could make little of it fill a disk.
_BLOCK = 4096
_SHARE = 4  # jumps may add at most a quarter of what is written, and one MiB
_SPARE = 1 << 20

# Called with the number of bytes that were decrypted since the last call.
Advance = Callable[[int], object]


@dataclass(frozen=True)
class Counted:
    """A sink that tells how much was written to another one."""

    sink: Sink
    advance: Advance

    def write(self, data: bytes) -> int:
        """Write and count."""
        self.advance(len(data))
        return self.sink.write(data)


class InOrder:
    """Writes a file from the flattened format, as makedumpfile -R does.

    makedumpfile itself would wait forever for the rest of a stream that was cut off.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._place = 0  # of the file, where the next piece is usually written
        self._taken = self._jumped = 0  # bytes, and what jumps can have added to them
        self.parser = Parser()

    def write(self, data: bytes) -> int:
        """Write each piece at its offset. Raises TinykdumpError for any other format."""
        self._taken += len(data)
        try:
            for place, piece in self.parser.feed(data):
                if place != self._place:  # to seek is to write out what is buffered
                    self._jump(place)
                self._place = place + self._file.write(piece)
        except ValueError as error:
            raise TinykdumpError(f"its contents are damaged: {error}", "copy the dump again"
                                 ) from None  # fmt: skip
        return len(data)

    def _jump(self, place: int) -> None:
        self._jumped += _BLOCK
        if self._jumped > self._taken // _SHARE + _SPARE:
            raise ValueError("its pieces are too small for their places")
        self._file.seek(place)


class ExistsError(TinykdumpError):
    """A file that is there already, and is not what would be written."""

    def __init__(self, file: Path) -> None:
        super().__init__(f"{file} exists", "name another directory with --output")


def partial(file: Path) -> Path:
    """The name of a file while it is written."""
    return file.with_name(f"{file.name}.partial")


def incomplete(file: Path) -> Path:
    """The name of a file that is not complete."""
    return file.with_stem(f"{file.stem}-incomplete")


def write(
    stream: Stream, file: Path, homes: Sequence[Path], advance: Advance
) -> tuple[Path, TinykdumpError | None]:
    """Restore one stream. Returns the file, and what makes it incomplete, if anything.

    Raises ExistsError if another file has its name, and TinykdumpError if nothing of the stream can
    be restored.
    """
    if not stream.parts:
        raise TinykdumpError(
            f"cannot restore {file.name}: {stream.missing} is missing",
            "copy the whole directory from the stick; "
            "a later crash may have deleted it to make room",
        )
    _check_room(stream, file)
    new = partial(file)
    try:
        new.unlink(missing_ok=True)
        problem = _fill(stream, new, homes, advance)
        if problem:
            file = incomplete(file)
            problem = TinykdumpError(f"{stream.file} is not complete: {problem.message}",
                                     f"{problem.hint}; {file} has what could be read")  # fmt: skip
        if os.path.lexists(file) and not _is_same(new, file):
            raise ExistsError(file)
        new.rename(file)
        sync_directory(file.parent)
    except OSError as error:
        hint = "check its free space"
        if error.errno == errno.EFBIG:  # 4 GiB on FAT
            hint = "name a directory of another file system with --output"
        raise TinykdumpError(f"{file}: {error.strerror}", hint) from None
    finally:
        new.unlink(missing_ok=True)
    return file, problem


def _is_same(new: Path, there: Path) -> bool:
    """Whether a file has the same contents: an earlier restore wrote it, and could not go on."""
    return stat.S_ISREG(there.lstat().st_mode) and filecmp.cmp(new, there, shallow=False)


def _check_room(stream: Stream, file: Path) -> None:
    """Raise TinykdumpError if there is too little space for a file that is as large as its parts.

    What InOrder adds to that is little; if it is too much, writing it fails.
    """
    free = shutil.disk_usage(file.parent).free
    if free < stream.size:
        raise TinykdumpError(
            f"cannot restore {file.name}: {file.parent} has {free // MIB} MiB free, "
            f"{-(-stream.size // MIB)} MiB are needed",
            "name another directory with --output",
        )


def _fill(
    stream: Stream, path: Path, homes: Sequence[Path], advance: Advance
) -> TinykdumpError | None:
    """Restore a stream to a new file, and sync it. Returns what makes it incomplete, if anything.

    Raises OSError if the file cannot be written, TinykdumpError if nothing was restored.
    """
    # Others must never be able to read it, not even before it is complete.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        problem = copy(stream, homes, file, advance)
        file.flush()
        if problem and stream.name == "vmcore.flat" and file.tell():
            file.truncate(file.seek(0, os.SEEK_END) + _PADDING)
        os.fsync(file.fileno())
        if not os.fstat(file.fileno()).st_size:
            problem = problem or TinykdumpError("it is empty", "copy the dump again")
            raise TinykdumpError(f"cannot restore {stream.file}: {problem.message}", problem.hint)
    return problem


def copy(
    stream: Stream, homes: Sequence[Path], file: BinaryIO, advance: Advance = lambda _: None
) -> TinykdumpError | None:
    """Restore a stream to an open file. Returns what makes it incomplete, if anything.

    A damaged part explains the errors of gpg and of the flattened format that follow from it, so it
    is reported instead of them. If neither of them misses anything, a part that is listed but
    missing belonged to an earlier attempt of the crash kernel. Raises OSError.
    """
    source = Source(stream)
    in_order = InOrder(file) if stream.name == "vmcore.flat" else None
    problem = None
    try:
        keyring = keyring_for(stream, homes)
        decrypt(stream, source, keyring, Counted(in_order or file, advance))
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
