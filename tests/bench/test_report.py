# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of the benchmarks; nothing is measured here."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.bench import __main__ as bench
from tests.bench import growth, report, screen, sizing
from tests.bench.report import Host, Measured, Row
from tests.kernel.scripts import Outcome, Scenario

HOST = Host("2026-11-26 21:00", "0123456789+", 1.25, {"Linux": "6.1"})


def row(group: str = "build", name: str = "tinykdump", *values: float, **fields: Any) -> Row:
    measured = Measured(group, name, "s", values or (1.0,), "tinykdump -b", **fields)
    return Row(measured, HOST)


ROWS = (
    row("build", "a <b> | c", 2.0, 1.0, 4.0, versions={"gpg": "2.4"}, note="warm & dry"),
    row("speed", "faster", 10.0, 30.0, more_is_better=True),
    row("build", "other", 1234.5),
)


def test_the_best_value_is_the_one_of_the_least_busy_host() -> None:
    assert (ROWS[0].measured.best, ROWS[0].measured.median) == (1.0, 2.0)
    assert (ROWS[1].measured.best, ROWS[1].measured.median) == (30.0, 20.0)


def test_a_figure_without_a_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="build, x: no value"):
        Measured("build", "x", "s", (), "true")


def test_a_newer_row_takes_the_place_of_the_older_one() -> None:
    newer = (row("speed", "new"), row("build", "other", 7.0))
    found = report.merged(ROWS, newer)
    assert [each.key for each in found] == [*(each.key for each in ROWS), ("speed", "new")]
    assert found[2].measured.values == (7.0,)


def test_json_holds_everything() -> None:
    text = report.to_json(ROWS)
    assert report.from_json(text) == ROWS
    assert [(each["best"], each["median"]) for each in json.loads(text)] == [
        (1.0, 2.0), (30.0, 20.0), (1234.5, 1234.5)]  # fmt: skip


@pytest.mark.parametrize("text", ["", "{}x", "{}", "[1]", '[{"group": "x"}]', "null"])
def test_a_file_that_is_no_report_is_refused(text: str) -> None:
    if text == "{}":  # no rows
        assert report.from_json(text) == ()
        return
    with pytest.raises(ValueError):
        report.from_json(text)


def test_markdown_has_a_table_for_each_group() -> None:
    lines = report.to_markdown(ROWS).splitlines()
    assert [line for line in lines if line.startswith("## ")] == ["## build", "## speed"]
    tables = [re.split(r"(?<!\\)\|", line) for line in lines if line.startswith("|")]
    assert {len(cells) for cells in tables} == {len(report.COLUMNS) + 2}
    assert [cells[2].strip() for cells in tables if cells[4].strip() == "s"] == ["1", "1234", "30"]
    assert "- a <b> | c: `tinykdump -b` (warm & dry; Linux 6.1, gpg 2.4)" in lines


def test_html_is_one_page_with_a_chart_for_each_group() -> None:
    text = report.to_html(ROWS)
    body = text[text.index("<body>") : text.index("</html>")]
    page = ElementTree.fromstring(body)  # noqa: S314 - our own text
    assert len(page.findall(".//svg")) == 2
    assert [each.text for each in page.findall(".//h2")] == ["build", "speed"]
    assert [each.text for each in page.findall(".//code")] == ["tinykdump -b"] * 3
    assert "a <b> | c" in "".join(page.itertext())
    # The longest bar is that of the largest figure.
    widths = [float(each.get("width", "0")) for each in page.findall(".//svg[1]//rect")]
    assert widths[1] > 100 * widths[0]
    assert not re.search(r"(src|href)=", text)


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0"), (0.126, "0.126"), (1.0, "1"), (12.34, "12.3"), (99.96, "100"), (1234.5, "1234"),
])  # fmt: skip
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert report.shown(value) == text


def test_rows_of_the_searches_for_a_reservation() -> None:
    found = list(sizing.figures(sizing.Found("stock", "vfat", "lzo", 1, 88, 87, 96)))
    assert [(each.name, each.best, each.note) for each in found] == [
        ("captures at", 88, f"{88 - sizing.STEP_MIB} MiB fail"), ("need", 87, ""),
        ("reserved", 96, "1.09 times the smallest"),
    ]  # fmt: skip
    assert len({(each.group, each.name) for each in found}) == 3
    seen = list(screen.figures(screen.Found(1920, 1080, True, 72, 70, 78)))
    assert [each.best for each in seen] == [72, 70, 78]
    assert seen[0].group == "reservation, screen 1920x1080, drivers started"


def test_rows_of_the_growth_of_the_reservation() -> None:
    outcome = Outcome(Scenario("tmpfs", "grow"), (), {"median_ms": "21", "rounds": "10"})
    (found,) = growth.figures([outcome])
    assert (found.name, found.values, found.unit) == ("tmpfs", (21.0,), "ms")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A directory for reports, and two benches that measure nothing."""

    def one() -> Iterator[Measured]:
        yield Measured("a", "first", "s", (1.0,), "true")
        raise SystemExit("bench: broken off")

    def two() -> Iterator[Measured]:
        yield Measured("b", "second", "s", (2.0,), "true")

    monkeypatch.setattr(bench, "OUTPUT", tmp_path / "bench")
    monkeypatch.setattr(bench, "BENCHES", {"one": one, "two": two})
    monkeypatch.setattr(bench, "versions", lambda: {"QEMU": "1"})
    yield tmp_path / "bench"


def test_a_long_bench_can_be_run_in_pieces(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was measured before a bench ended is in all three reports."""
    monkeypatch.setattr(sys, "argv", ["bench", "two"])
    bench.main()
    monkeypatch.setattr(sys, "argv", ["bench", "one"])
    with pytest.raises(SystemExit, match="broken off"):
        bench.main()
    assert sorted(path.name for path in run.iterdir()) == ["report.html", "report.json",
                                                           "report.md"]  # fmt: skip
    names = [each.measured.name for each in report.from_json((run / "report.json").read_text())]
    assert names == ["second", "first"]
    assert "## a" in (run / "report.md").read_text()
    assert "a: first: 1 s (median 1 of 1, load " in capsys.readouterr().out


def test_an_unknown_bench_is_an_error(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "two", "three"])
    with pytest.raises(SystemExit, match="2"):
        bench.main()
    assert "unknown: three" in capsys.readouterr().err
    assert not run.exists()
