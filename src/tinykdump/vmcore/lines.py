# SPDX-License-Identifier: GPL-2.0-or-later
"""A report as text. Values in, text out."""

from collections.abc import Iterator, Sequence

from tinykdump.vmcore import log
from tinykdump.vmcore.facts import Facts, Record, Task

_BAR = 32  # characters
_SHARE = 100


def size(number: int) -> str:
    """Bytes for people."""
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if number >= 1 << shift:
            return f"{number / (1 << shift):.1f} {unit}"
    return f"{number >> 10} KiB"


def summary(facts: Facts) -> Iterator[tuple[str, str]]:
    """The first lines: what and its value, where that is known."""
    hours, rest = divmod(int(facts.uptime), 3600)
    uptime = f"{hours}:{rest // 60:02}:{rest % 60:02}" if facts.uptime else ""
    values = (
        ("panic", facts.reason), ("kernel", facts.release), ("build ID", facts.build_id),
        ("host", facts.host), ("crashed", facts.crashed), ("uptime", uptime),
        ("taint", facts.taint or "none"), ("vmcore", facts.vmcore),
    )  # fmt: skip
    yield from ((name, value) for name, value in values if value)


def who(task: Task) -> str:
    """A task in one line."""
    state = f", state {task.state}" if task.state else ""
    memory = f", {size(task.memory)}" if task.memory else ""
    return f"{task.name} (PID {task.pid}{state}, CPU {task.cpu}{memory})"


def stamped(record: Record) -> str:
    """A line of the log, as dmesg(1) prints it."""
    return f"[{record.seconds:12.6f}] {record.text}"


def render(facts: Facts) -> str:
    """The report."""
    return "\n".join(_lines(facts)) + "\n"


def _lines(facts: Facts) -> Iterator[str]:
    for name, value in summary(facts):
        yield f"{name + ':':10}{value}"
    if facts.crashing:
        yield from _headed(f"Crashing task: {who(facts.crashing)}", _stack(facts.crashing))
    lines = [stamped(record) for record in log.around(facts.log)]
    yield from _headed("Log around the crash", lines)
    yield from _headed(f"Memory, {facts.memory.source}", list(_memory(facts)))
    top = [f"{size(task.memory):>12}  {task.name} ({task.pid})" for task in facts.top]
    yield from _headed(f"Most memory, of {facts.tasks} tasks", top)
    for task in facts.blocked:
        yield from _headed(f"Blocked: {who(task)}", _stack(task))
    queues = [
        f"CPU {queue.cpu}: {queue.running} runs, {queue.length} in the queue"
        + (f": {', '.join(queue.waiting)}" if queue.waiting else "")
        for queue in facts.queues
    ]
    yield from _headed("Run queues", queues)
    yield from _headed(f"Modules: {len(facts.modules)}", [" ".join(facts.modules)])
    yield from _headed("Not shown", facts.missing)


def _headed(title: str, lines: Sequence[str]) -> Iterator[str]:
    if any(lines):
        yield ""
        yield title
        yield from (f"    {line}" for line in lines)


def _stack(task: Task) -> list[str]:
    return [f"#{number:<2} {function}" for number, function in enumerate(task.stack)]


def _memory(facts: Facts) -> Iterator[str]:
    total = sum(kind.size for kind in facts.memory.kinds)
    for kind in facts.memory.kinds:
        bar = "#" * round(_BAR * kind.size / total) if total else ""
        yield f"{kind.name:34}{size(kind.size):>12}  {bar}".rstrip()
