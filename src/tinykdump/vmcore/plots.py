# SPDX-License-Identifier: GPL-2.0-or-later
"""Plots of a report as static SVG. Values in, text out; all texts are escaped here.

Colors are variables of the page (page.py), which has one set for light and one for dark.
"""

from collections.abc import Sequence
from html import escape

_WIDTH = 900
_ROW, _BAR = 26, 14  # pixels
_LABEL, _VALUE = 240, 130

_HEIGHT, _AXIS = 130, 22
_LEAST = 4.0  # pixels of what is not zero: one error among many lines has to be seen
_LEVELS = (("errors", "error"), ("warnings", "warning"), ("other lines", "other"))


def bars(title: str, rows: Sequence[tuple[str, int, str]]) -> str:
    """A bar for each row: its label, its length and what is written at its end."""
    most = max((length for _, length, _ in rows), default=0) or 1
    room = _WIDTH - _LABEL - _VALUE
    parts = []
    for number, (label, length, value) in enumerate(rows):
        middle = number * _ROW + _ROW // 2
        width = max(room * length / most, 1.0 if length else 0.0)
        parts.append(
            f'<text x="{_LABEL - 10}" y="{middle}" class="label">{escape(label)}</text>'
            f'<rect x="{_LABEL}" y="{middle - _BAR // 2}" width="{width:.1f}" height="{_BAR}" '
            f'rx="3" class="bar"/>'
            f'<text x="{_LABEL + width + 8:.1f}" y="{middle}" class="value">{escape(value)}</text>'
        )
    return _svg(title, max(len(rows), 1) * _ROW, parts)


def timeline(title: str, counts: Sequence[tuple[int, int, int]], start: float, end: float) -> str:
    """Stacked columns of errors, warnings and other lines from ``start`` to ``end`` (seconds).

    The height is the square root of the number: a boot logs hundreds of lines, and a crash few.
    """
    most = max((sum(column) for column in counts), default=0) or 1
    step = _WIDTH / (len(counts) or 1)
    parts = []
    for number, column in enumerate(counts):
        total = sum(column)
        height = (_HEIGHT - 3 * _LEAST) * (total / most) ** 0.5
        bottom = float(_HEIGHT)
        for lines, (_, name) in zip(column, _LEVELS, strict=True):
            part = max(height * lines / total, _LEAST) if lines else 0.0
            bottom -= part
            if lines:
                parts.append(f'<rect x="{number * step + 1:.1f}" y="{bottom:.1f}" '
                             f'width="{step - 2:.1f}" height="{part:.1f}" class="{name}"/>'
                             )  # fmt: skip
    parts.append(f'<line x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}" class="axis"/>')
    for at, anchor, seconds in ((0, "start", start), (_WIDTH // 2, "middle", (start + end) / 2),
                                (_WIDTH, "end", end)):  # fmt: skip
        parts.append(f'<text x="{at}" y="{_HEIGHT + _AXIS - 8}" class="tick" '
                     f'text-anchor="{anchor}">{seconds:.1f} s</text>')  # fmt: skip
    return _svg(title, _HEIGHT + _AXIS, parts)


def legend() -> str:
    """What the colors of the timeline are."""
    items = (f'<span><i class="{name}"></i>{text}</span>' for text, name in _LEVELS)
    return f'<p class="legend">{"".join(items)}</p>'


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg></figure>"
    )
