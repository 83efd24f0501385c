# SPDX-License-Identifier: GPL-2.0-or-later
"""Restores a dump from a stick: which streams, to which files, and what is missing."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tinykdump import output
from tinykdump.dump import LOG, STREAMS
from tinykdump.errors import TinykdumpError
from tinykdump.output import Advance
from tinykdump.parts import Dump, Stream

_VMCORE = STREAMS["vmcore"]


@dataclass(frozen=True)
class Restored:
    """The result of restoring a dump."""

    files: tuple[Path, ...]  # written
    ignored: tuple[str, ...]  # names on the stick that are not part of a dump
    failures: tuple[TinykdumpError, ...]  # what is missing or incomplete; empty: success


def restore(
    dump: Dump,
    target: Path,
    homes: Sequence[Path],
    *,
    plain: bool = False,
    advance: Advance = lambda _: None,
) -> Restored:
    """Write the log and the vmcore of a dump to the directory ``target``, for the user only.

    A file that is incomplete or that does not match its sum gets a name like vmcore-incomplete.
    ``homes`` are GnuPG directories with secret keys. A stream that is not encrypted is refused
    unless ``plain`` is set, because anyone who had the stick could have written it. ``advance`` is
    called with the number of bytes that were restored. Raises TinykdumpError or OSError if nothing
    at all can be restored.
    """
    is_new = not os.path.lexists(target)
    target.mkdir(parents=True, exist_ok=not is_new, mode=0o700)
    try:
        with alone(target):
            files, failures = _streams(dump, target, homes, plain=plain, advance=advance)
    finally:
        if is_new:
            with suppress(OSError):  # it has what was restored
                target.rmdir()
    if all(stream.file != _VMCORE for stream in dump.streams):
        why = "if crash-kernel.txt exists, it says why"
        failures.append(TinykdumpError(f"{dump.directory} has no vmcore", why))
    return Restored(tuple(files), dump.ignored, tuple(failures))


def _streams(
    dump: Dump, target: Path, homes: Sequence[Path], *, plain: bool, advance: Advance
) -> tuple[list[Path], list[TinykdumpError]]:
    """The files that were written, and what is missing. Raises TinykdumpError or OSError."""
    files: list[Path] = []
    failures: list[TinykdumpError] = []
    _refuse_to_overwrite(target)
    for stream in dump.streams:  # the logs first
        try:
            _refuse_forged(stream, plain=plain)
            file, problem = output.write(stream, target / stream.file, homes, advance)
        except output.ExistsError:  # the log of another dump: do not add the vmcore of this one
            raise
        except TinykdumpError as error:
            failures.append(error)
            continue
        files.append(file)
        failures.extend([problem] if problem else [])
    return files, failures


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Raise TinykdumpError if a dump is being restored to that directory, or OSError.

    Each would delete the other's file, or call it complete. On NFS, nobody notices the other.
    """
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, target)
        yield
    finally:
        os.close(descriptor)


def _lock(directory: int, target: Path) -> None:
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise TinykdumpError(f"a dump is being restored to {target}", "wait for it") from None
    except OSError as error:
        # flock(2): on NFS, only what is open for writing can be locked.
        if error.errno not in (errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise


def log(
    dump: Dump, homes: Sequence[Path], *, plain: bool = False
) -> tuple[bytes, TinykdumpError | None]:
    """The log of the crashed kernel, and what makes it incomplete, if anything.

    Raises TinykdumpError if there is none, OSError.
    """
    stream = next((each for each in dump.streams if each.name == LOG and each.parts), None)
    if stream is None:
        raise TinykdumpError(f"{dump.directory} has no {LOG}", "restore the vmcore")
    _refuse_forged(stream, plain=plain)
    text = BytesIO()
    problem = output.copy(stream, homes, text)
    if problem and not text.getvalue():
        raise problem
    return text.getvalue(), problem


def _refuse_forged(stream: Stream, *, plain: bool) -> None:
    if not stream.encrypted and not plain:
        raise TinykdumpError(
            f"{stream.file} is not encrypted: anyone who had the stick can have written it",
            "use --plain if the machine does not encrypt its dumps",
        )


def _refuse_to_overwrite(target: Path) -> None:
    """Raise ExistsError if a vmcore is there; the logs are compared once they are restored."""
    file = target / _VMCORE
    for name in (file, output.incomplete(file)):
        if os.path.lexists(name):
            raise output.ExistsError(name)


def is_leftover(target: Path) -> bool:
    """Whether a directory of this user has nothing but what a restore wrote before the vmcore.

    It was ended then, or the disk was full.
    """
    found = target.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return False
    ours = [Path(name) for name in STREAMS.values()]
    known = {each.name for name in ours for each in (name, output.incomplete(name),
                                                     output.partial(name))}  # fmt: skip
    there = {path.name for path in target.iterdir()}
    return there <= known and not there & {_VMCORE, output.incomplete(Path(_VMCORE)).name}
