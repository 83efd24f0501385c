# SPDX-License-Identifier: GPL-2.0-or-later
import subprocess
import time
from pathlib import Path

import pytest

from tinykdump.errors import TinykdumpError
from tinykdump.image import archive, entries

ENTRIES = entries.plan(
    [
        entries.file("/bin/busybox", b"#!" * 3000, mode=0o755),
        entries.file("/etc/key with a space", b"key"),
        entries.link("/bin/sh", "busybox"),
        entries.directory("/dev"),
    ]
)
UNPACKERS = {"ZSTD": ["zstd", "-dc"], "XZ": ["xz", "-dc"], "GZIP": ["gzip", "-dc"]}


def packed(below: Path, compression: str = "GZIP") -> bytes:
    with archive.staged(ENTRIES, below) as top:
        return archive.pack(ENTRIES, top, compression)


@pytest.mark.parametrize("compression", sorted(UNPACKERS))
def test_packing_a_plan_twice_gives_the_same_bytes(tmp_path: Path, compression: str) -> None:
    first = packed(tmp_path / "a", compression)
    time.sleep(1.1)  # cpio's times have whole seconds
    assert packed(tmp_path / "b" / "c", compression) == first


@pytest.mark.parametrize("compression", sorted(UNPACKERS))
def test_the_archive_contains_the_plan(tmp_path: Path, compression: str) -> None:
    archive = subprocess.run(UNPACKERS[compression], input=packed(tmp_path, compression),
                             capture_output=True, check=True).stdout  # fmt: skip
    assert archive.startswith(b"070701"), "not newc, the only format that the kernel unpacks"
    listed = subprocess.run(["cpio", "--list", "--verbose", "--numeric-uid-gid", "--quiet"],
                            input=archive, capture_output=True, check=True,
                            env={"TZ": "UTC"})  # fmt: skip
    lines = [line.split() for line in listed.stdout.decode().splitlines()]
    assert [(words[0], words[2], words[3], " ".join(words[8:])) for words in lines] == [
        ("drwxr-xr-x", "0", "0", "bin"),
        ("-rwxr-xr-x", "0", "0", "bin/busybox"),
        ("lrwxrwxrwx", "0", "0", "bin/sh -> busybox"),
        ("drwxr-xr-x", "0", "0", "dev"),
        ("drwxr-xr-x", "0", "0", "etc"),
        ("-rw-r--r--", "0", "0", "etc/key with a space"),
    ]
    assert {tuple(words[5:8]) for words in lines} == {("Jan", "1", "1970")}


def test_xz_uses_the_only_check_that_the_kernel_supports(tmp_path: Path) -> None:
    assert packed(tmp_path, "XZ")[:8] == b"\xfd7zXZ\0\0\1"  # stream flags: CRC32


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("CONFIG_RD_ZSTD=y\nCONFIG_RD_XZ=y\nCONFIG_RD_GZIP=y", "ZSTD"),
        ("CONFIG_RD_GZIP=y\nCONFIG_RD_XZ=y\n# CONFIG_RD_ZSTD is not set", "XZ"),
        ("CONFIG_RD_GZIP=y\nCONFIG_RD_LZ4=y", "GZIP"),
        ("", "GZIP"),
        ("#CONFIG_RD_ZSTD=y", "GZIP"),
    ],
)
def test_the_compression_is_one_that_the_kernel_unpacks(config: str, expected: str) -> None:
    assert archive.compressor(config) == expected


def test_the_staged_tree_is_private_and_is_removed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), archive.staged(ENTRIES, tmp_path) as top:
        assert top.stat().st_mode & 0o777 == 0o700
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_build_are_removed(tmp_path: Path) -> None:
    (tmp_path / "stage-old/bin").mkdir(parents=True)
    packed(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_missing_in_the_staged_tree_is_an_error(tmp_path: Path) -> None:
    with archive.staged(ENTRIES[:-1], tmp_path) as top, pytest.raises((TinykdumpError, OSError)):
        archive.pack(ENTRIES, top, "GZIP")
