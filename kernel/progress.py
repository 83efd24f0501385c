# SPDX-License-Identifier: GPL-2.0-or-later
"""Shows the progress of a build: a bar on a terminal, otherwise a line from time to time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from kernel.build import Progress
from kernel.run import say

# How often to print a line.
LINE_SECONDS = 60.0
# The time left is estimated from the last part of the build; a build takes 10 minutes or more.
SPEED_SECONDS = 120.0


@contextmanager
def shown(console: Console, what: str) -> Iterator[Progress]:
    """Show the progress; yields the function to pass to kernel.build.build()."""
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("objects,"), TimeRemainingColumn(), TextColumn("left"),
    )  # fmt: skip
    with Bar(*columns, console=console, transient=True, speed_estimate_period=SPEED_SECONDS) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """Prints a line a minute."""

    def __init__(self) -> None:
        self.first: tuple[float, int] | None = None
        self.said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self.first = self.first or (now, done)
        if now - self.said < LINE_SECONDS:
            return
        self.said = now
        left = remaining(now - self.first[0], done - self.first[1], total - done)
        say(f"{done} of {total} objects{left}")


def remaining(seconds: float, done: int, left: int) -> str:
    """The time left, at the speed of these seconds; "" at the start. Pure."""
    if done <= 0:
        return ""
    return f", {max(1, round(left * seconds / done / 60))} minutes left" if left else ", linking"
