# SPDX-License-Identifier: GPL-2.0-or-later
"""What the log of a crashed kernel says of the crash. Values in, values out."""

import re
from collections.abc import Iterator, Sequence

from tinykdump.text import short
from tinykdump.vmcore.facts import Record, Task

# How a report of the kernel on something that went wrong begins.
_MARKS = ("BUG: ", "Oops: ", "kernel BUG at ", "cut here ]", "general protection fault",
          "sysrq: Trigger a crash", "Unable to handle", "watchdog: ", "Internal error")  # fmt: skip
_PANIC = "Kernel panic - not syncing: "

# dump_stack_print_info() in lib/dump_stack.c; UID since Linux 6.12.
_WHO = re.compile(
    r"CPU: (\d{1,5}) (?:UID: \d{1,10} )?PID: (\d{1,8}) Comm: (.{1,64}?) (?:Kdump: loaded )?"
    r"(?:Not tainted|Tainted: ([A-Z](?: *[A-Z])*)) "
)
_MODULES = re.compile(r"Modules linked in: (.*)")

# A line as makedumpfile --dump-dmesg prints it.
_LINE = re.compile(rb"\[ *([0-9]{1,9}\.[0-9]{6})\](?: \[ *[TC][0-9]+\])? ?(.*)")
_INFO = 6  # the level of a line whose level is not known
_WIDTH = 1000  # characters

_BEFORE, _AROUND = 12, 120  # lines


def parse(text: bytes) -> tuple[Record, ...]:
    """The lines of a log in a file. A line without a time has that of the line before it."""
    found, seconds = [], 0.0
    for line in text.splitlines():
        match = _LINE.match(line)
        if match:
            seconds = float(match[1])
        found.append(Record(seconds, _INFO, short(match[2] if match else line, _WIDTH)))
    return tuple(found)


def reason(log: Sequence[Record]) -> str:
    """Why the kernel panicked; empty if the log does not say."""
    at = _panic(log)
    if at is not None:
        return log[at].text.partition(_PANIC)[2]
    found = (record.text for record in reversed(log) if _is_mark(record.text))
    return next(found, "")


def around(log: Sequence[Record]) -> Sequence[Record]:
    """The lines from shortly before the crash's first report on."""
    at = _panic(log)
    end = len(log) if at is None else at
    marks = [number for number in range(max(0, end - 200), end) if _is_mark(log[number].text)]
    first = marks[0] if marks else max(0, end - 30)
    return log[max(0, first - _BEFORE) :][:_AROUND]


def crashing(log: Sequence[Record]) -> Task | None:
    """The task that crashed, as the log describes it."""
    lines = around(log)
    for number, record in enumerate(lines):
        if match := _WHO.search(record.text):
            stack = tuple(_trace(lines[number:]))
            return Task(int(match[2]), match[3], "", 0, int(match[1]), stack)
    return None


def taint(log: Sequence[Record]) -> str | None:
    """Letters as in Documentation/admin-guide/tainted-kernels.rst; None if the log does not say."""
    for record in reversed(log):
        if match := _WHO.search(record.text):
            return " ".join((match[4] or "").split())
    return None


def modules(log: Sequence[Record]) -> tuple[str, ...]:
    """The modules that were loaded, each with the letters of its taint."""
    for record in reversed(log):
        if match := _MODULES.search(record.text):
            return tuple(match[1].partition("[last unloaded")[0].split())
    return ()


def timeline(log: Sequence[Record], bins: int) -> tuple[tuple[int, int, int], ...]:
    """How many lines of errors, of warnings and of the rest there are in each part of the time."""
    counts = [[0, 0, 0] for _ in range(bins)]
    if not log:
        return ()
    start = min(record.seconds for record in log)
    length = max(record.seconds for record in log) - start or 1.0
    for record in log:
        at = min(int((record.seconds - start) / length * bins), bins - 1)
        counts[at][0 if record.level <= 3 else 1 if record.level == 4 else 2] += 1
    return tuple((errors, warnings, rest) for errors, warnings, rest in counts)


def _panic(log: Sequence[Record]) -> int | None:
    numbers = range(len(log) - 1, -1, -1)
    return next((number for number in numbers if _PANIC in log[number].text), None)


def _is_mark(text: str) -> bool:
    return any(mark in text for mark in _MARKS)


def _trace(lines: Sequence[Record]) -> Iterator[str]:
    """The functions of the first call trace; those that may be leftovers have a question mark.

    Some architectures write "Call trace:", and nothing at its end.
    """
    texts = [record.text.strip() for record in lines]
    starts = [n for n, text in enumerate(texts) if text.lower().startswith("call trace:")]
    for text in texts[starts[0] + 1 :] if starts else ():
        if text.startswith(("</TASK>", "RIP:")) or not ("+0x" in text or text.startswith("<")):
            return
        if not text.startswith("<"):
            yield text
