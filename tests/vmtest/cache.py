# SPDX-License-Identifier: GPL-2.0-or-later
"""Slow things are built once and kept outside the checkout, under the hash of their inputs."""

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

# An entry that nobody asked for in this time goes when prune() is called.
KEEP_DAYS = 30.0


def key(*inputs: object) -> str:
    """A hash of the inputs. A path stands for the content of its file, wherever it lies."""
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
    """The directory of that key; the first one to ask has it built, the others wait for it."""
    final = directory() / kind / entry_key
    with locked(final):
        if not final.exists():
            _build(final, build)
    # Only for prune(); the content is never judged by its age.
    os.utime(final)
    return final


@contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(final: Path, build: Callable[[Path], None]) -> None:
    # The lock is ours, so what an earlier builder left behind is nobody's.
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
    """Delete a tree, but never through a mount that somebody left in it (a chroot's /dev, say)."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    inside = [point for line in mounts if Path(point := line.split()[4]).is_relative_to(tree)]
    if inside:
        raise OSError(f"{tree} has file systems mounted in it (unmount them: {' '.join(inside)})")
    shutil.rmtree(tree)


def prune(keep_days: float = KEEP_DAYS) -> list[Path]:
    """Delete the entries that were not asked for in that many days, and return them."""
    oldest = time.time() - keep_days * 24 * 3600
    removed = []
    for path in sorted(directory().glob("*/*")):
        if path.is_dir() and path.stat().st_mtime < oldest:
            with locked(path):
                remove(path)
            removed.append(path)
    return removed
