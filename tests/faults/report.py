# SPDX-License-Identifier: GPL-2.0-or-later
"""The results as Markdown and JSON, and the table in README.md that keeps the last ones. Pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import cast

from tests.faults.scenario import Result, Scenario, Verdict

# The results in README.md stand below this line.
HEAD = (
    "| row | what is done | what the person must get "
    "| date | kernel | seconds | verdict | what the person gets |"
)
RULE = "|---|---|---|---|---|---:|---|---|"


def table(rows: Sequence[Scenario], results: Iterable[Result]) -> str:
    """All rows in Markdown, each with its result; a row that has none says so."""
    known = {result.id: result for result in results}
    lines = (_line(row, known.get(row.id)) for row in rows)
    return "\n".join((HEAD, RULE, *lines)) + "\n"


def _line(row: Scenario, result: Result | None) -> str:
    if row.reason:
        cells = ("", "", "", "not here", row.reason)
    elif result:
        cells = (result.date, result.kernel, f"{result.seconds:.0f}", result.verdict, result.gets)
    else:
        cells = ("", "", "", "not run yet", "")
    return _join(row.id, row.done, row.wanted, *cells)


def _join(*cells: str) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in cells)} |"


def parse(text: str) -> list[Result]:
    """The results in a text with such a table."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) == HEAD.count(" | ") + 1 and cells[6] in ("good", "bad", "lost"):
            row, _, _, date, kernel, seconds, verdict, gets = cells
            found.append(Result(row, date, kernel, float(seconds), cast(Verdict, verdict), gets))
    return found


def merge(old: Iterable[Result], new: Iterable[Result]) -> list[Result]:
    """One result for each row; the new ones win."""
    return list(({each.id: each for each in old} | {each.id: each for each in new}).values())


def replace_table(text: str, rows: Sequence[Scenario], new: Iterable[Result]) -> str:
    """README.md with the new results in its table, which ends the file."""
    start = text.index(HEAD)
    return text[:start] + table(rows, merge(parse(text[start:]), new))


def to_json(rows: Sequence[Scenario], results: Iterable[Result]) -> str:
    """The results, each with what was done and wanted; without those of rows that are gone."""
    known = {each.id: each for each in rows}
    entries = [
        {"done": known[each.id].done, "wanted": known[each.id].wanted} | asdict(each)
        for each in results
        if each.id in known
    ]
    return json.dumps(entries, indent=2) + "\n"


def from_json(text: str) -> list[Result]:
    names = [field.name for field in fields(Result)]
    return [Result(**{name: each[name] for name in names}) for each in json.loads(text)]
