# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of the fault matrix, and the results in it."""

import json

import pytest

from tests.faults import report
from tests.faults.__main__ import README, chosen
from tests.faults.bench import Bench
from tests.faults.scenario import Result, Scenario
from tests.faults.table import ROWS


def nothing(_: Bench) -> str:
    return ""


ROW = Scenario("stick", "one", "a | b", "c", nothing)
OTHER = Scenario("service", "two", "d", "e", nothing)
NEVER = Scenario("hostile", "three", "f", "g", reason="no such machine")
GOOD = Result("stick/one", "2026-01-02", "stock", 12.0, "good", "a dump")


def test_a_row_has_a_check_or_a_reason() -> None:
    with pytest.raises(ValueError, match="or neither"):
        Scenario("stick", "one", "", "")
    with pytest.raises(ValueError, match="or neither"):
        Scenario("stick", "one", "", "", nothing, reason="none")


def test_each_row_is_in_the_table_with_its_result() -> None:
    lines = report.table((ROW, OTHER, NEVER), [GOOD]).splitlines()
    assert lines[2:] == [
        "| stick/one | a / b | c | 2026-01-02 | stock | 12 | good | a dump |",
        "| service/two | d | e |  |  |  | not run yet |  |",
        "| hostile/three | f | g |  |  |  | not here | no such machine |",
    ]


def test_new_results_replace_old_ones_and_the_others_stay() -> None:
    other = Result("service/two", "2026-01-01", "patched", 3.0, "bad", "two lines")
    text = "# before\n\n" + report.table((ROW, OTHER, NEVER), [GOOD, other])
    assert report.parse(text) == [GOOD, other]
    again = Result("service/two", "2026-01-03", "stock", 4.0, "good", "one\nline")
    new = report.replace_table(text, (ROW, OTHER, NEVER), [again])
    assert new.startswith("# before\n\n| row |")
    assert report.parse(new) == [GOOD, Result("service/two", "2026-01-03", "stock", 4.0, "good",
                                              "one line")]  # fmt: skip


def test_json_has_what_was_done() -> None:
    assert report.from_json(report.to_json((ROW,), [GOOD])) == [GOOD]
    (entry,) = json.loads(report.to_json((ROW,), [GOOD]))
    assert (entry["id"], entry["done"], entry["verdict"]) == ("stick/one", "a | b", "good")


def test_names_of_rows() -> None:
    ids = [row.id for row in ROWS]
    assert len(ids) == len(set(ids))
    assert {row.group for row in chosen(["stick"])} == {"stick"}
    assert [row.id for row in chosen(["stick/read-only"])] == ["stick/read-only"]
    assert all(row.check for row in chosen([]))
    with pytest.raises(SystemExit, match="faults: stock is neither"):
        chosen(["stock"])


def test_the_readme_has_the_rows_as_they_are() -> None:
    """Run `python -m tests.faults --record` after a change of a row."""
    text = README.read_text(encoding="utf-8")
    assert report.replace_table(text, ROWS, []) == text
