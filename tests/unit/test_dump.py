# SPDX-License-Identifier: GPL-2.0-or-later
"""The format on the stick. The tests of restore and src/crash use it, too."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinykdump import dump
from tinykdump.clock import local, shown


@given(st.sampled_from(sorted(dump.STREAMS)), st.booleans(), st.integers(0, 999_999))
def test_parts(stream: str, encrypted: bool, number: int) -> None:
    name = dump.part_name(stream, encrypted, number)
    assert dump.parse_part(name) == (stream, encrypted, number)


@pytest.mark.parametrize(
    "name",
    ["", "vmcore", "vmcore.gpg", "vmcore.0", "vmcore.0001", "vmcore.1000000", "vmcore.000.gpg",
     "x.000", "../vmcore.000", "vmcore.00\n0", "vmcore.\u0660\u0660\u0660"],
)  # fmt: skip
def test_names_that_are_not_parts(name: str) -> None:
    assert dump.parse_part(name) is None


@pytest.mark.parametrize(
    ("name", "is_dump", "is_complete"),
    [
        ("20260101T000000Z", True, True),
        ("20260101T000000Z-12", True, True),
        ("20260101T000000Z.partial", True, False),
        ("20260101T000000Z-1.partial", True, False),
        ("20260101T000000Z.partial.partial", False, False),
        ("20260101T000000Z-incomplete", False, True),
        ("20260101T000000Z\n", False, True),
        ("..", False, True),
    ],
)
def test_names_of_dumps(name: str, is_dump: bool, is_complete: bool) -> None:
    assert (dump.is_dump(name), dump.is_complete(name)) == (is_dump, is_complete)


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("name", ["99991231T235959Z", "00010101T000000Z", "20261301T000000Z", "x"])
def test_a_name_of_no_time(name: str) -> None:
    """Anyone can have written it. Times without a local time would end whoever shows them."""
    assert dump.time(name) is None


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("year", ["0002", "1970", "2026", "9998"])
def test_the_time_of_a_dump_can_be_shown(year: str) -> None:
    found = dump.time(f"{year}0101T000000Z-3.partial")
    assert found is not None
    assert shown(local(found.timestamp())).endswith("-01-01 05:30:00 TST")


def test_sums() -> None:
    one, other = "1" * 64, "a" * 64
    text = (
        f"{one}  x.000\n{other}  x.000\n{one}  y\n{one[1:]}  z\n{one} z\n{other.upper()}  z\n{one}"
    )
    assert dump.parse_sums(text) == {"x.000": {one, other}, "y": {one}}
