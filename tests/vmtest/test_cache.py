# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: entries are built once, appear only when complete, and can be deleted safely."""

import os
import threading
import time
from pathlib import Path

import pytest

from tests.vmtest import cache
from tests.vmtest.rootfs import Recipe


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYKDUMP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_user_can_choose_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.directory() == tmp_path / "cache"
    monkeypatch.delenv("TINYKDUMP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.directory() == tmp_path / "tinykdump"


def test_key_follows_content_not_place(tmp_path: Path) -> None:
    for name, content in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / name).write_text(content, encoding="ascii")
    assert cache.key(tmp_path / "a") == cache.key(tmp_path / "b") != cache.key(tmp_path / "c")
    # A path and its name are different inputs.
    assert cache.key(tmp_path / "a") != cache.key(str(tmp_path / "a"))


def test_key_depends_on_every_field() -> None:
    assert cache.key(Recipe()) == cache.key(Recipe())
    assert cache.key(Recipe()) != cache.key(Recipe(size_mib=8192))


def test_key_refuses_unknown_types() -> None:
    with pytest.raises(TypeError, match="cannot make a cache key"):
        cache.key(object())


def test_entry_is_built_once_for_parallel_callers(own_cache: Path) -> None:
    built = []

    def build(directory: Path) -> None:
        time.sleep(0.05)
        built.append(directory)
        (directory / "file").touch()

    threads = [threading.Thread(target=cache.entry, args=("kind", "k", build)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (own_cache / "kind/k/file").exists()


def test_failed_build_leaves_nothing(own_cache: Path) -> None:
    def build(directory: Path) -> None:
        (directory / "half").touch()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.entry("kind", "k", build)
    assert [path.name for path in (own_cache / "kind").iterdir()] == ["k.lock"]


def unused_for(days: float, kind: str = "kind") -> Path:
    """An entry that was last used that many days ago."""
    return last_used(cache.entry(kind, str(days), Path.touch), days)


def last_used(path: Path, days: float) -> Path:
    then = time.time() - days * 24 * 3600
    os.utime(path, (then, then))
    return path


def free_space(monkeypatch: pytest.MonkeyPatch, *sizes: int) -> None:
    """What the file system says each time that it is asked; the last size stays."""
    left = list(sizes)
    monkeypatch.setattr(cache, "_free", lambda: left.pop(0) if len(left) > 1 else left[0])


def test_old_entries_are_deleted_before_another_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    free_space(monkeypatch, cache.ROOM)
    old, lately = unused_for(15), unused_for(13)
    cache.entry("kind", "new", Path.touch)
    assert not old.exists()
    assert lately.exists()


def test_a_full_disk_keeps_what_was_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    free_space(monkeypatch, cache.ROOM)
    older, old, today = unused_for(3, "other"), unused_for(2), unused_for(0.1)
    free_space(monkeypatch, cache.ROOM - 1, cache.ROOM)
    assert cache.prune() == [older]
    free_space(monkeypatch, 0)
    assert cache.prune() == [old]
    assert today.exists()


def test_prune_leaves_what_is_no_entry(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's sources and objects are in the same cache."""
    free_space(monkeypatch, 0)
    tree = own_cache / "kernel/tree"
    tree.mkdir(parents=True)
    last_used(tree, 40)
    assert cache.prune() == []
    assert tree.exists()
