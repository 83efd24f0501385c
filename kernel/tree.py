# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a git repository from the tarball of the source, and applies the series in it.

A checkout of another commit rewrites only the files that differ, so make rebuilds only what a
changed patch touches.
"""

import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kernel.run import KernelError, output, say
from kernel.source import Source

# Fixed, so that equal inputs give equal commit ids on every machine.
_IDENTITY = {
    "GIT_AUTHOR_NAME": "tinykdump",
    "GIT_AUTHOR_EMAIL": "tinykdump@localhost",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "tinykdump",
    "GIT_COMMITTER_EMAIL": "tinykdump@localhost",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}
PRISTINE = "pristine"


@dataclass(frozen=True)
class Series:
    name: str
    # In the order in which they apply, without the cover letter.
    patches: tuple[Path, ...]


@dataclass(frozen=True)
class Commit:
    series: str
    patch: Path
    id: str


def find_series(directory: Path, names: list[str] | None) -> list[Series]:
    """The series below `directory` in the order of their names; `names` picks some of them.

    A single patch has no cover letter, as is usual.
    """
    found = {
        path.name: Series(path.name, patches)
        for path in sorted(directory.glob("*/"))
        if (patches := tuple(sorted(set(path.glob("0*.patch")) - set(path.glob("0000-*.patch")))))
    }
    if names is None:
        return list(found.values())
    if missing := [name for name in names if name not in found]:
        raise KernelError(
            f"no series {missing[0]} in {directory}", f"known: {', '.join(found) or 'none'}"
        )
    return [found[name] for name in names]


def touched(patch: str) -> list[str]:
    """The files that a patch changes, adds, removes or renames."""
    pairs = re.findall(r"^diff --git a/(\S+) b/(\S+)$", patch, re.MULTILINE)
    return sorted({path for pair in pairs for path in pair})


def git(tree: Path, *args: str | Path, stdin: str | None = None) -> str:
    return output(["git", "-C", tree, *args], env=_IDENTITY, stdin=stdin).strip()


@contextmanager
def exclusive(lock: Path, waiting: str) -> Iterator[None]:
    """Hold a lock; print `waiting` if another process has it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(waiting)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _preparing(tree: Path) -> AbstractContextManager[None]:
    # Not the lock of builds, so that a finished kernel can be found during another build.
    return exclusive(tree.with_name(f"{tree.name}.am.lock"), "waiting for another git in this tree")


def make_tree(source: Source, directory: Path) -> Path:
    """The repository for `source`; made on first use."""
    tree = directory / f"{source.version}-{source.sha256[:12]}"
    with _preparing(tree):
        if not tree.exists():
            _import(source, tree)
    return tree


def _import(source: Source, tree: Path) -> None:
    say(f"unpacking Linux {source.version} into a git repository, once")
    work = tree.with_name(f"{tree.name}.new")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    # The directory in the tarball is named after the version, or after the series only.
    tar: list[str | Path] = ["tar", "--extract", "--strip-components=1", "--directory", work]
    output([*tar, "--file", source.archive.resolve()])
    git(work, "init", "--quiet", "--initial-branch", PRISTINE)
    # Speed matters more than size: the repository can be made again from the tarball.
    for setting in ("core.compression=1", "gc.auto=0", "core.fileMode=true"):
        name, value = setting.split("=")
        git(work, "config", name, value)
    git(work, "add", "--all", "--force", ".")
    git(work, "commit", "--quiet", "--message", f"Linux {source.version}")
    work.rename(tree)


def _apply_one(tree: Path, parent: str, series: Series) -> list[Commit]:
    """Apply a series with git am in a work tree that holds only the files it touches."""
    texts = [patch.read_text() for patch in series.patches]
    key = hashlib.sha256("\0".join([parent, *texts]).encode()).hexdigest()[:16]
    ref = f"refs/series/{series.name}/{key}"
    if not git(tree, "for-each-ref", ref):
        files = sorted({path for text in texts for path in touched(text)})
        work = tree.parent / f"{tree.name}.am"
        shutil.rmtree(work, ignore_errors=True)
        git(tree, "worktree", "prune")
        git(tree, "worktree", "add", "--quiet", "--no-checkout", "--detach", work, parent)
        git(
            work,
            "sparse-checkout",
            "set",
            "--no-cone",
            "--stdin",
            stdin="".join(f"/{path}\n" for path in files),
        )
        git(work, "checkout", "--quiet", "--detach", parent)
        try:
            am = ["am", "--quiet", "--committer-date-is-author-date"]
            git(work, *am, *(str(patch.resolve()) for patch in series.patches))
            git(work, "update-ref", ref, "HEAD")
        except KernelError as error:
            raise KernelError(f"series {series.name} does not apply: {error}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
            git(tree, "worktree", "prune")
    ids = git(tree, "rev-list", "--reverse", f"{parent}..{ref}").split()
    if len(ids) != len(series.patches):
        raise KernelError(
            f"series {series.name} made {len(ids)} commits from {len(series.patches)} patches"
        )
    return [Commit(series.name, patch, id_) for patch, id_ in zip(series.patches, ids, strict=True)]


def apply(tree: Path, series: list[Series]) -> list[Commit]:
    """The commits of all series on top of each other, oldest first."""
    commits: list[Commit] = []
    with _preparing(tree):
        for one in series:
            commits += _apply_one(tree, commits[-1].id if commits else pristine(tree), one)
    return commits


def pristine(tree: Path) -> str:
    return git(tree, "rev-parse", f"refs/heads/{PRISTINE}")


def checkout(tree: Path, commit: str) -> None:
    git(tree, "checkout", "--quiet", "--force", "--detach", commit)
