# SPDX-License-Identifier: GPL-2.0-or-later
"""Caches what is slow to build, outside the checkout, under the hash of its inputs."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path

from kernel.cache import directory

__all__ = ["directory", "entry", "key", "locked", "prune", "remove"]

# Seconds. An entry that was not used for so long is deleted before another is built ...
KEEP_SECONDS = 14 * 24 * 3600.0
# ... and the entries that were not used for the longest time are, until so many bytes are free ...
ROOM = 16 << 30
# ... but none that was used this lately: another run may still use it.
IN_USE_SECONDS = 6 * 3600.0


def key(*inputs: object) -> str:
    """A hash of the inputs. A path stands for the content of its file."""
    text = json.dumps([_plain(each) for each in inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: object) -> object:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return ["bytes", hashlib.sha256(value).hexdigest()]
        case Path():
            with value.open("rb") as file:
                return ["file", hashlib.file_digest(file, "sha256").hexdigest()]
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {str(name): _plain(each) for name, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    raise TypeError(f"cannot make a cache key from {value!r}")


def entry(kind: str, entry_key: str, build: Callable[[Path], None]) -> Path:
    """The directory for a key, built by the first caller; others wait for it."""
    final = directory() / kind / entry_key
    if not final.exists():
        prune()
    with locked(final):
        if not final.exists():
            _build(final, build)
    # The time is only for prune().
    os.utime(final)
    return final


@contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _build(final: Path, build: Callable[[Path], None]) -> None:
    # This process holds the lock, so no other process uses these leftovers.
    for leftover in final.parent.glob(f".{final.name}.*"):
        remove(leftover)
    draft = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        build(draft)
        draft.chmod(0o755)
        draft.rename(final)
    except BaseException:
        remove(draft)
        raise


def remove(tree: Path) -> None:
    """Delete a tree. Raises OSError if something is mounted in it (such as a chroot's /dev)."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    inside = [point for line in mounts if Path(point := line.split()[4]).is_relative_to(tree)]
    if inside:
        raise OSError(f"{tree} has file systems mounted in it (unmount them: {' '.join(inside)})")
    shutil.rmtree(tree)


def prune() -> list[Path]:
    """Delete old entries, and more while the disk is nearly full. Returns what was deleted."""
    removed = []
    for path in sorted(filter(_is_entry, directory().glob("*/*")), key=_last_use):
        unused = time.time() - _last_use(path)
        if unused < IN_USE_SECONDS or (unused < KEEP_SECONDS and _free() >= ROOM):
            break
        with locked(path):
            if path.exists():
                remove(path)
                removed.append(path)
    return removed


def _is_entry(path: Path) -> bool:
    """Whether entry() made it: kernel/ keeps sources, objects and kernels in the same cache."""
    return path.is_dir() and _lock(path).exists()


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another run deleted it
        return 0.0


def _free() -> int:
    """The free bytes of the file system with the cache."""
    return shutil.disk_usage(directory()).free
