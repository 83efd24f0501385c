# SPDX-License-Identifier: GPL-2.0-or-later
"""Free space, compared with the figures of the file systems' own tools."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import plugged
from tests.plugged import MIB
from tinykdump import room


def free(image: Path, kind: str) -> int | None:
    with image.open("rb") as file:
        return room.free(kind, lambda at, size: os.pread(file.fileno(), size, at))


@pytest.mark.parametrize(("kind", "size"), [("vfat", 64), ("vfat", 3000), ("fat16", 64)])
def test_fat(tmp_path: Path, kind: str, size: int) -> None:
    image = plugged.made(tmp_path / "image", kind, size=size * MIB)
    assert free(image, "vfat") == plugged.free_of_fat(image)
    plugged.fill(image, "file", 5 * MIB + 1)
    left = free(image, "vfat")
    assert left == plugged.free_of_fat(image)
    assert left < (size - 5) * MIB


@pytest.mark.parametrize("size", [64, 3000])
def test_exfat(tmp_path: Path, size: int) -> None:
    """No tool writes a file to exFAT, so the test sets bits in the bitmap."""
    image = plugged.made(tmp_path / "image", "exfat", size=size * MIB)
    dumped = subprocess.run(
        ["dump.exfat", image], capture_output=True, check=True, text=True
    ).stdout
    has = {name: int(value) for name, value in re.findall(r"([^:\n]+):\s+(\d+)\n", dumped)}
    clusters, cluster = has["Free Clusters"], has["Cluster size"]
    assert free(image, "exfat") == clusters * cluster
    heap = has["Cluster Heap Offset (sector offset)"] << has["Sector Size Bits"]
    with image.open("r+b") as file:
        file.seek(heap + (has["Bitmap start cluster"] - 2) * cluster + 20)
        file.write(b"\xff")
    assert free(image, "exfat") == (clusters - 8) * cluster


@pytest.mark.parametrize("kind", ["ext4", "ext2"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_ext(tmp_path: Path, kind: str) -> None:
    image = plugged.made(tmp_path / "image", kind, size=200 * MIB)
    (tmp_path / "mnt").mkdir()
    subprocess.run(["mount", "-o", "loop", image, tmp_path / "mnt"], check=True)
    try:
        (tmp_path / "mnt/file").write_bytes(b"\1" * (9 * MIB))
        os.sync()
        held = os.statvfs(tmp_path / "mnt")
        in_use = free(image, kind)
    finally:
        subprocess.run(["umount", tmp_path / "mnt"], check=True)
    # A mount namespace of another test may keep it mounted for a while.
    wait = 'while [ -n "$(losetup --associated "$1")" ]; do sleep 0.1; done'
    subprocess.run(["sh", "-c", wait, "sh", image], check=True, timeout=120)
    assert free(image, kind) == held.f_bavail * held.f_frsize
    if kind == "ext4":
        assert in_use is None, "the journal is not empty"


@pytest.mark.parametrize("kind", ["vfat", "exfat", "ext4"])
def test_the_space_of_a_file_system_that_is_cut_off_is_not_known(tmp_path: Path, kind: str) -> None:
    image = plugged.made(tmp_path / "image", kind)
    os.truncate(image, 1500)
    assert free(image, kind) is None
    os.truncate(image, 0)
    assert free(image, kind) is None


def test_the_space_of_other_file_systems_is_not_known() -> None:
    assert room.free("xfs", lambda _at, size: bytes(size)) is None


@given(
    noise=st.binary(max_size=120),
    kind=st.sampled_from(["vfat", "exfat", "ext4"]),
    known=st.sampled_from([b"", b"\0\2\x08\x20\0\2\0\0\0\0\xf8\0\0"]),
)
def test_any_content_of_a_stick(noise: bytes, kind: str, known: bytes) -> None:
    """It ends soon, whatever size the file system claims."""
    start = (b"\xebX\x90mkfs.fat" + known + noise if known else noise) * 40
    asked = []

    def read(at: int, size: int) -> bytes:
        assert 0 <= at < 1 << 63, "not an offset for pread(2)"
        asked.append(size)
        return start[at : at + size].ljust(size, b"\0")

    found = room.free(kind, read)
    assert found is None or 0 <= found < 1 << 64
    assert sum(asked) <= 66 * MIB


MEMINFO = """\
MemTotal:         960000 kB
MemFree:          600000 kB
Buffers:           10000 kB
Cached:           150000 kB
AnonPages:         60000 kB
Active(anon):      61000 kB
Hugetlb:               0 kB
"""
IOMEM = """\
00001000-0009fbff : System RAM
000a0000-000fffff : Reserved
00100000-3fffffff : System RAM
  10000000-12ffffff : Crash kernel
"""
RAM = 0x9EC00 + 0x3FF00000 - 0x3000000
KIB = 1 << 10


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        (31, RAM - (600000 + 160000 + 60000) * KIB),
        (16, RAM - 600000 * KIB),
        (2, RAM),  # it is not known how much of the page cache is private
        (4, RAM - 160000 * KIB),
        (8, RAM - 60000 * KIB),
        (0, RAM),
        (1, RAM),
    ],
)
def test_each_level_excludes_its_pages(level: int, kept: int) -> None:
    assert room.expected_dump(MEMINFO, IOMEM, level) == kept


def test_without_iomem() -> None:
    """Users other than root read zeros."""
    hidden = re.sub("[0-9a-f]{8}", "00000000", IOMEM)
    kept = (960000 - 600000 - 160000 - 60000) * KIB
    assert room.expected_dump(MEMINFO, hidden, 31) == kept
    assert room.expected_dump(MEMINFO, "", 31) == kept
    assert room.expected_dump("", "", 31) == 0


def test_this_machine() -> None:
    """The kernel of this machine uses more than 20 MiB, but not most of the memory."""
    texts = (Path("/proc/meminfo").read_text(), Path("/proc/iomem").read_text())
    total = room.expected_dump(*texts, 0)
    assert 20 * MIB < room.expected_dump(*texts, 31) < total / 2


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 MiB"), (30 * MIB + 5, "30 MiB"), (205 * MIB, "0.2 GiB"), (5222 * MIB, "5.1 GiB")],
)
def test_amounts(size: int, text: str) -> None:
    assert room.amount(size) == text
