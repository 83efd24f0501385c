# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing tinykdump's own files: atomically, and readable by root only."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add this path to an OSError that names no file, such as one from write(2)."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def private(directory: Path) -> None:
    """Create a directory with mode 0700, whatever the umask; change the mode of an existing one.

    Nothing is written if it is as it should be: it can be on a read-only file system. Missing
    parents are created in the same way. Raises OSError.
    """
    for missing in (*reversed(directory.parents), directory):
        if not missing.exists():
            missing.mkdir(mode=0o700, exist_ok=True)  # another process can make it meanwhile
    if stat.S_IMODE(directory.stat().st_mode) != 0o700:
        directory.chmod(0o700)


def delete(directory: Path) -> None:
    """Delete a directory with its contents, if it exists. Raises OSError."""
    with suppress(FileNotFoundError):
        shutil.rmtree(directory)


def publish(files: Mapping[Path, bytes]) -> None:
    """Replace files, readable by root only, each on the disk before the next one is renamed.

    The last file refers to the others: a process that is killed before that rename has
    published nothing. All contents are written before the first rename. Leftovers of killed
    processes are deleted; those of others would be, too, hence state.lock(). Raises OSError with
    the file's name.
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
            sync_directory(path.parent)
    finally:
        for name in written:
            Path(name).unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Write the names in a directory to the disk. Raises OSError with its name."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming(directory):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Write all files below a directory to the disk, with their names. Raises OSError."""
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file, naming(path):
                os.fsync(file.fileno())
    below = (path for path in directory.rglob("*") if path.is_dir() and not path.is_symlink())
    for place in (*below, directory, directory.parent, directory.parent.parent):
        sync_directory(place)
