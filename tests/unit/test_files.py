# SPDX-License-Identifier: GPL-2.0-or-later
import os
import subprocess
from pathlib import Path

import pytest

from tinykdump import files


def test_published_files_are_readable_by_root_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "image"
    for content in (b"first", b"second"):
        files.publish({path: content})
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_publish_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    files.publish({path: b"old"})

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.publish({path: b"new"})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_of_the_old_file_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "image"
    files.publish({path: b"old"})
    with path.open("rb") as reader:
        files.publish({path: b"new"})
        assert reader.read() == b"old"


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".new-x1y2").write_bytes(b"half")
    files.publish({tmp_path / "image": b"new"})
    assert [path.name for path in tmp_path.iterdir()] == ["image"]


def test_an_error_when_syncing_names_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the rename may not be on the disk."""
    fsync = os.fsync

    def fails(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir():
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match=f"'{tmp_path}'"):
        files.publish({tmp_path / "image": b"new"})


def test_two_that_make_a_directory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the services do at boot. Each finds out that it is not there, then both make it."""
    (tmp_path / "there").mkdir(mode=0o777)
    monkeypatch.setattr(Path, "exists", lambda path: path != tmp_path / "there")
    files.private(tmp_path / "there")
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o700


def test_private_whatever_the_umask(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o777)
    before = os.umask(0)
    try:
        files.private(tmp_path / "there")
        files.private(tmp_path / "new/below")
    finally:
        os.umask(before)
    for name in ("there", "new", "new/below"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700, name


@pytest.mark.checkout
def test_a_private_directory_on_a_read_only_file_system(tmp_path: Path) -> None:
    """As after errors=remount-ro: an image that is there can still be loaded."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,mode=700", "none", tmp_path], check=True)
    try:
        files.private(tmp_path)
        with pytest.raises(OSError, match="Read-only file system"):
            files.private(tmp_path / "more")
    finally:
        subprocess.run(["umount", tmp_path], check=True)
