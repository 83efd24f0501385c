# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a build has come: a bar where somebody looks, else a line now and then."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from kernel.build import Progress
from kernel.run import say

# How often there is a line; a log that is read afterwards needs no more.
LINE_SECONDS = 60.0
# The time left is told from this much of the build, which takes 10 minutes or more.
SPEED_SECONDS = 120.0


@contextmanager
def shown(console: Console, what: str) -> Iterator[Progress]:
    """What to hand to kernel.build.build()."""
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
    """One a minute."""

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
    """How long what is left takes if it goes on as it did in these seconds; "" at first. Pure."""
    if done <= 0:
        return ""
    return f", {max(1, round(left * seconds / done / 60))} minutes left" if left else ", linking"
