# SPDX-License-Identifier: GPL-2.0-or-later
import hashlib
import stat

import pytest

from tinykdump.errors import TinykdumpError
from tinykdump.image.entries import Entry, directory, file, link, plan, unpacked_size


def test_entries_are_sorted_and_parents_come_first() -> None:
    found = plan([file("/usr/lib/b", b"x"), file("/bin/z", b"y", mode=0o755), directory("/dev"),
                  link("/bin/a", "z")])  # fmt: skip
    assert [(entry.path, oct(entry.mode)) for entry in found] == [
        ("/bin", "0o40755"), ("/bin/a", "0o120777"), ("/bin/z", "0o100755"), ("/dev", "0o40755"),
        ("/usr", "0o40755"), ("/usr/lib", "0o40755"), ("/usr/lib/b", "0o100644"),
    ]  # fmt: skip


def test_equal_entries_are_merged() -> None:
    asked = [file("/lib/a", b"x", source="/lib64/a"), file("/lib/a", b"x", source="/lib64/a")]
    assert len(plan(asked)) == 2


@pytest.mark.parametrize(
    "other",
    [
        file("/lib/a", b"y", source="/other"),
        file("/lib/a", b"x", source="/other", mode=0o755),
        link("/lib/a", "x"),
        file("/lib/a/b", b"", source="/other"),
    ],
)
def test_different_entries_with_the_same_path_are_an_error(other: Entry) -> None:
    with pytest.raises(TinykdumpError, match="both want /lib/a in the image"):
        plan([file("/lib/a", b"x", source="/one"), other])


def test_a_file_in_the_place_of_a_directory_is_an_error() -> None:
    with pytest.raises(TinykdumpError, match="both want /lib/a in the image"):
        plan([file("/lib/a/b", b""), file("/lib/a", b"x")])


@pytest.mark.parametrize(("size", "pages"), [(0, 0), (1, 1), (4096, 1), (4097, 2)])
def test_unpacked_files_take_whole_pages(size: int, pages: int) -> None:
    assert (
        unpacked_size([file("/a", bytes(size)), link("/b", "a"), directory("/c")]) == 4096 * pages
    )


def test_digest() -> None:
    assert file("/a", b"x").digest == hashlib.sha256(b"x").hexdigest()
    assert stat.S_ISREG(file("/a", b"x").mode)
