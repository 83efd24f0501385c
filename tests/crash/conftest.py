# SPDX-License-Identifier: GPL-2.0-or-later
"""Sticks for the crash side: full, small, read-only, and one that fails late."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fakehost
from tests.crash.world import BLOCK, Crash


@pytest.fixture(scope="session")
def applets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with busybox under the name of each applet, for the start of PATH."""
    path = tmp_path_factory.mktemp("applets")
    subprocess.run([fakehost.real("busybox"), "--install", "-s", path], check=True)
    return path


@pytest.fixture
def crash(applets: Path, short_path: Path) -> Iterator[Crash]:
    for name in ("tmp", "sys", "dev", "stick/dump.partial"):
        (short_path / name).mkdir(parents=True, mode=0o700)
    (short_path / "bin").symlink_to(applets)
    yield Crash(short_path)


@pytest.fixture
def full_stick(crash: Crash) -> Iterator[Crash]:
    """A stick with room for one block."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={BLOCK}", "none", crash.dump], check=True)
    yield crash
    subprocess.run(["umount", crash.dump], check=True)


@pytest.fixture
def short_medium(crash: Crash) -> Iterator[Crash]:
    """A block device of 64 MiB whose backing file cannot grow beyond 12 MiB. The kernel gets a
    write error when it writes back data that dd has already written."""
    backing, size = crash.top / "backing", 12 << 20
    backing.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", backing], check=True)
    image = backing / "stick.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext2", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, crash.stick], check=True)
    crash.dump.mkdir()
    yield crash
    subprocess.run(["umount", crash.stick], check=True)
    # The loop device closes its file a moment later.
    subprocess.run(["umount", "--lazy", backing], check=True)


@pytest.fixture
def read_only_stick(crash: Crash) -> Iterator[Crash]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", crash.stick], check=True)
    yield crash
    subprocess.run(["umount", crash.stick], check=True)


@pytest.fixture
def small_stick(crash: Crash) -> Iterator[Crash]:
    """A stick of 8 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "none", crash.stick], check=True)
    yield crash
    subprocess.run(["umount", crash.stick], check=True)
