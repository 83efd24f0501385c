# SPDX-License-Identifier: GPL-2.0-or-later
"""Files and directories of our own: whole or not there, and for root alone."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError of the block that names no file, as those of write(2), name this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def private(directory: Path) -> None:
    """Make a directory that only root can look into, whatever the umask, or make it one.

    Parents that are missing are made in the same way. Raises OSError.
    """
    for missing in (*reversed(directory.parents), directory):
        if not missing.exists():
            missing.mkdir(mode=0o700)
    directory.chmod(0o700)


def delete(directory: Path) -> None:
    """Delete a directory with all that is in it, if it is there. Raises OSError."""
    with suppress(FileNotFoundError):
        shutil.rmtree(directory)


def publish(files: Mapping[Path, bytes]) -> None:
    """Put files in place, readable by root alone, each on the disk before the next one's name.

    The last one is what makes the others count: whoever is killed before its rename has
    published nothing. Everything that takes room is written before the first rename; what
    somebody who was killed has left behind goes away. Raises OSError, with the file's name.
    """
    written: dict[str, Path] = {}
    try:
        for directory in {path.parent for path in files}:
            private(directory)
            for left in directory.glob(".new-*"):
                left.unlink()
        for path, content in files.items():
            descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
            written[name] = path
            with naming(path), os.fdopen(descriptor, "wb") as new:
                new.write(content)
                new.flush()
                os.fsync(new.fileno())
        for name, path in written.items():
            Path(name).replace(path)
            _sync_directory(path.parent)
    finally:
        for name in written:
            Path(name).unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming(directory):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
