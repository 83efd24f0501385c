# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of the benchmarks: rows as JSON, Markdown and HTML. Values in, text out.

A benchmark yields a Measured for each figure. Together with the state of the host, this is a Row. A
row replaces the one with the same group and name, so that a long bench can be run in pieces.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from tinykdump.vmcore import plots


@dataclass(frozen=True)
class Measured:
    """One figure, of one or more runs."""

    group: str  # what it is compared with: a table and a chart
    name: str  # unique in its group
    unit: str  # "s", "s of CPU", "MB" ...
    values: tuple[float, ...]  # of each run, in order
    command: str  # what was run
    more_is_better: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)  # of programs that were measured
    note: str = ""

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError(f"{self.group}, {self.name}: no value was measured")

    @property
    def best(self) -> float:
        """The best value, since a busy host only makes values worse."""
        return max(self.values) if self.more_is_better else min(self.values)

    @property
    def median(self) -> float:
        """The median of the values."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Host:
    """The state of the host while something was measured."""

    time: str  # UTC
    commit: str  # of tinykdump; "+" at its end: with changes
    load: float  # the highest average of one minute, before or after
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    measured: Measured
    host: Host

    @property
    def key(self) -> tuple[str, str]:
        """What a newer row of the same figure has, too."""
        return self.measured.group, self.measured.name


def merged(rows: Iterable[Row], newer: Iterable[Row]) -> tuple[Row, ...]:
    """The rows, each replaced by a newer one of the same figure; new figures are at the end."""
    found = {row.key: row for row in rows}
    found.update((row.key, row) for row in newer)
    return tuple(found.values())


def groups(rows: Iterable[Row]) -> Mapping[str, Sequence[Row]]:
    """The rows by group, groups in the order of their first row."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.measured.group, []).append(row)
    return found


def shown(value: float) -> str:
    """A figure with three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def summary(row: Row) -> str:
    """A row as a line for the terminal."""
    measured = row.measured
    return (
        f"{measured.group}: {measured.name}: {shown(measured.best)} {measured.unit} "
        f"(median {shown(measured.median)} of {len(measured.values)}, load {row.host.load:.1f})"
    )


# --- JSON -------------------------------------------------------------------------------


def to_json(rows: Iterable[Row]) -> str:
    """The rows as JSON: the best and the median value are there for other programs."""
    return json.dumps(
        [
            asdict(row.measured)
            | {"best": row.measured.best, "median": row.measured.median, "host": asdict(row.host)}
            for row in rows
        ],
        indent=2,
    )


def from_json(text: str) -> tuple[Row, ...]:
    """The rows of a report. Raises ValueError if it is none."""
    try:
        return tuple(_row(each) for each in json.loads(text))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a report of the benchmarks: {error!r}") from None


def _row(fields: Mapping[str, Any]) -> Row:
    own = dict(fields)
    del own["best"], own["median"]
    host = Host(**own.pop("host"))
    return Row(Measured(**own | {"values": tuple(own["values"])}), host)


# --- Markdown and HTML ------------------------------------------------------------------

COLUMNS = ("figure", "best", "median", "unit", "runs", "load", "commit", "measured")
_NUMBERS = {"best", "median", "load"}


def cells(row: Row) -> tuple[str, ...]:
    """The texts of a line, by COLUMNS."""
    measured, host = row.measured, row.host
    return (measured.name, shown(measured.best), shown(measured.median), measured.unit,
            " ".join(map(shown, measured.values)), f"{host.load:.1f}", host.commit,
            host.time)  # fmt: skip


def details(row: Row) -> str:
    """What was run, with which versions."""
    versions = {**row.host.versions, **row.measured.versions}
    parts = (row.measured.note, ", ".join(f"{name} {text}" for name, text in versions.items()))
    return "; ".join(filter(None, parts))


def to_markdown(rows: Sequence[Row]) -> str:
    """The rows as tables, with what was run below each."""
    lines = ["# What the benchmarks measured", ""]
    for group, members in groups(rows).items():
        lines += [f"## {group}", "", _line(COLUMNS)]
        lines += ["|" + "|".join("--:" if name in _NUMBERS else "---" for name in COLUMNS) + "|"]
        lines += [_line(cells(row)) for row in members]
        lines += ["", *(f"- {row.measured.name}: `{row.measured.command}` ({details(row)})"
                        for row in members), ""]  # fmt: skip
    return "\n".join(lines)


def _line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


_STYLE = """
:root { color-scheme: light dark; --page: #fcfcfb; --text: #1d1d1b; --dim: #63625e;
  --line: #e1e0db; --bar: #2a78d6; }
@media (prefers-color-scheme: dark) { :root { --page: #191918; --text: #eeede9; --dim: #a5a49f;
  --line: #3a3a37; --bar: #5598e7; } }
body { margin: auto; max-width: 68rem; padding: 2rem 1rem; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
td, th { padding: .25rem .75rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); }
td.n, th.n { text-align: right; } th, small { color: var(--dim); font-weight: normal; }
code { overflow-wrap: anywhere; } figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { font: 13px system-ui, sans-serif; fill: var(--text); dominant-baseline: central; }
svg .label { text-anchor: end; } svg .value { fill: var(--dim); } .bar { fill: var(--bar); }
"""


def to_html(rows: Sequence[Row]) -> str:
    """The rows as one page that loads nothing: charts, tables, and what was run."""
    sections = "\n".join(_section(group, members) for group, members in groups(rows).items())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>tinykdump: benchmarks</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>What the benchmarks measured</h1>\n{sections}\n</body>\n</html>\n"
    )


def _section(group: str, rows: Sequence[Row]) -> str:
    units = {row.measured.unit: None for row in rows}  # in their order
    charts = "".join(_chart(f"{group}, {unit}", [row for row in rows if row.measured.unit == unit])
                     for unit in units)  # fmt: skip
    head = "".join(_cell("th", name, name) for name in COLUMNS)
    body = "".join(
        "<tr>" + "".join(_cell("td", name, text)
                         for name, text in zip(COLUMNS, cells(row), strict=True)) + "</tr>\n"
        for row in rows
    )  # fmt: skip
    ran = "".join(
        f"<li>{escape(row.measured.name)}: <code>{escape(row.measured.command)}</code> "
        f"<small>{escape(details(row))}</small></li>\n"
        for row in rows
    )
    return (
        f"<section>\n<h2>{escape(group)}</h2>\n{charts}\n"
        f"<table><tr>{head}</tr>\n{body}</table>\n<ul>\n{ran}</ul>\n</section>"
    )


def _cell(kind: str, column: str, text: str) -> str:
    number = ' class="n"' if column in _NUMBERS else ""
    return f"<{kind}{number}>{escape(text)}</{kind}>"


def _chart(title: str, rows: Sequence[Row]) -> str:
    # Bars have whole lengths: thousandths of the unit.
    bars = [(row.measured.name, round(row.measured.best * 1000),
             f"{shown(row.measured.best)} {row.measured.unit}") for row in rows]  # fmt: skip
    return plots.bars(title, bars)
