# SPDX-License-Identifier: GPL-2.0-or-later
import hashlib
import stat

import pytest

from tinykdump.errors import TinykdumpError
from tinykdump.image.entries import Entry, directory, file, link, plan, unpacked_size


def test_parents_come_first_and_everything_is_sorted() -> None:
    found = plan([file("/usr/lib/b", b"x"), file("/bin/z", b"y", mode=0o755), directory("/dev"),
                  link("/bin/a", "z")])  # fmt: skip
    assert [(entry.path, oct(entry.mode)) for entry in found] == [
        ("/bin", "0o40755"), ("/bin/a", "0o120777"), ("/bin/z", "0o100755"), ("/dev", "0o40755"),
        ("/usr", "0o40755"), ("/usr/lib", "0o40755"), ("/usr/lib/b", "0o100644"),
    ]  # fmt: skip


def test_the_same_file_may_be_asked_for_twice() -> None:
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
def test_two_different_ones_in_one_place(other: Entry) -> None:
    with pytest.raises(TinykdumpError, match="both want /lib/a in the image"):
        plan([file("/lib/a", b"x", source="/one"), other])


def test_a_file_where_a_directory_is_needed() -> None:
    with pytest.raises(TinykdumpError, match="both want /lib/a in the image"):
        plan([file("/lib/a/b", b""), file("/lib/a", b"x")])


@pytest.mark.parametrize(("size", "pages"), [(0, 0), (1, 1), (4096, 1), (4097, 2)])
def test_memory_is_taken_in_pages(size: int, pages: int) -> None:
    assert (
        unpacked_size([file("/a", bytes(size)), link("/b", "a"), directory("/c")]) == 4096 * pages
    )


def test_digest() -> None:
    assert file("/a", b"x").digest == hashlib.sha256(b"x").hexdigest()
    assert stat.S_ISREG(file("/a", b"x").mode)
