# SPDX-License-Identifier: GPL-2.0-or-later
"""A bar with the rate and the time left, on a terminal and where python3-rich is installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from tinykdump.output import Advance

# Less than this many bytes is done before anyone has seen a bar.
_SMALL = 16 << 20


@contextmanager
def bar(what: str, total: int) -> Iterator["Advance"]:
    """Show on standard error how far something with ``total`` bytes is.

    The bar appears with the first bytes: before, gpg may ask for a passphrase on this terminal.
    """
    shown = _progress() if total >= _SMALL and sys.stderr.isatty() else None
    if shown is None:
        yield lambda _: None
        return
    task = shown.add_task(what, total=total)

    def advance(size: int) -> None:
        shown.start()  # no more than once
        shown.advance(task, size)

    try:
        yield advance
    finally:
        shown.stop()


def _progress() -> "Progress | None":
    try:
        from rich import console, progress  # noqa: PLC0415 - takes 0.1 s, and may be missing
    except ImportError:
        return None
    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=console.Console(stderr=True),
        transient=True,
    )
