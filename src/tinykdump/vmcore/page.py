# SPDX-License-Identifier: GPL-2.0-or-later
"""A report as one HTML page that loads nothing. Values in, text out.

The texts come from a vmcore, which anyone can have forged: all of them are escaped, and the page
itself forbids scripts and everything from elsewhere.
"""

from collections.abc import Iterator, Sequence
from html import escape

from tinykdump.vmcore import log, plots
from tinykdump.vmcore.facts import Facts, Task
from tinykdump.vmcore.lines import size, stamped, summary, who

_BINS = 60
_LOG = 5000  # lines; the end is what matters

_STYLE = """
:root { color-scheme: light dark; --page: #fcfcfb; --card: #ffffff; --text: #1d1d1b; --dim: #63625e;
  --line: #e1e0db; --code: #f4f4f1; --bar: #2a78d6; --error: #d03b3b; --warning: #c98500;
  --other: #9fb4cc; }
@media (prefers-color-scheme: dark) { :root { --page: #191918; --card: #222221; --text: #eeede9;
  --dim: #a5a49f; --line: #3a3a37; --code: #1c1c1b; --bar: #5598e7; --error: #ef6b6b;
  --warning: #e0a53a; --other: #56687c; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: auto; }
header p { margin: 0; color: var(--dim); }
h1 { margin: .2rem 0 1.2rem; font-size: 1.5rem; line-height: 1.3; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 1rem 1.25rem; margin: 0 0 1rem; }
h2 { margin: 0 0 .6rem; font-size: 1.05rem; overflow-wrap: anywhere; }
h2 small, .dim { color: var(--dim); font-weight: normal; font-size: .85rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
pre { margin: 0; padding: .75rem; overflow-x: auto; background: var(--code); border-radius: 6px;
  font: 12.5px/1.5 ui-monospace, monospace; }
h3 { margin: .9rem 0 .4rem; font-size: .9rem; overflow-wrap: anywhere; }
pre b { color: var(--error); }
table { border-collapse: collapse; width: 100%; } td, th { padding: .25rem .75rem .25rem 0;
  text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { color: var(--dim); font-weight: normal; } td.n, th.n { text-align: right; width: 4rem; }
section > p { margin: 0; }
tr:last-child td { border-bottom: 0; }
figure { margin: 0; overflow-x: auto; }
svg { display: block; width: 100%; min-width: 40rem; height: auto; }
svg text { font: 13px system-ui, sans-serif; fill: var(--text); dominant-baseline: central; }
svg .label { text-anchor: end; } svg .value, svg .tick { fill: var(--dim); }
svg .tick { font-size: 12px; dominant-baseline: auto; } svg .axis { stroke: var(--line); }
.bar { fill: var(--bar); } .error { fill: var(--error); background: var(--error); }
.warning { fill: var(--warning); background: var(--warning); }
.other { fill: var(--other); background: var(--other); }
.legend { display: flex; gap: 1.2rem; margin: 0 0 .6rem; color: var(--dim); font-size: .85rem; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 2px;
  margin-right: .4rem; }
.missing { border-left: 4px solid var(--warning); } ul { margin: 0; padding-left: 1.2rem; }
li { overflow-wrap: anywhere; } summary { cursor: pointer; } details pre { margin-top: .75rem; }
"""


def render(facts: Facts) -> str:
    """The page."""
    title = facts.reason or "Kernel crash"
    body = "\n".join(_sections(facts))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><p>Kernel panic{escape(_on(facts))}</p>\n<h1>{escape(title)}</h1></header>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )


def _on(facts: Facts) -> str:
    return (f" on {facts.host}" if facts.host else "") + (
        f", {facts.crashed}" if facts.crashed else ""
    )


def _sections(facts: Facts) -> Iterator[str]:
    if facts.missing:
        items = "".join(f"<li>{escape(text)}</li>" for text in facts.missing)
        yield _section("Not shown", f"<ul>{items}</ul>", kind="missing")
    values = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in summary(facts)
    )
    yield _section("Summary", f"<dl>{values}</dl>")
    if facts.crashing:
        yield _section("Crashing task", _stack(facts.crashing), who(facts.crashing))
    if facts.log:
        yield _section("Log around the crash", _log(facts, around=True))
        first, last = facts.log[0].seconds, facts.log[-1].seconds
        plot = plots.timeline("Lines of the log over time", log.timeline(facts.log, _BINS), first,
                              last)  # fmt: skip
        yield _section("Log over time", plots.legend() + plot,
                       f"{len(facts.log)} lines; height is the square root of their number"
                       )  # fmt: skip
    if facts.memory.kinds:
        total = sum(kind.size for kind in facts.memory.kinds)
        rows = [
            (kind.name, kind.size, f"{size(kind.size)}, {100 * kind.size / (total or 1):.0f} %")
            for kind in facts.memory.kinds
        ]
        note = f"{size(total)}, {facts.memory.source}"
        yield _section("Memory by kind", plots.bars("Memory by kind", rows), note)
    if facts.top:
        rows = [(f"{task.name} ({task.pid})", task.memory, size(task.memory)) for task in facts.top]
        yield _section("Most memory", plots.bars("Tasks with the most memory", rows),
                       f"of {facts.tasks} tasks")  # fmt: skip
    yield from _tables(facts)


def _tables(facts: Facts) -> Iterator[str]:
    if facts.tasks:
        tasks = "".join(f"<h3>{escape(who(task))}</h3>{_stack(task)}" for task in facts.blocked)
        yield _section("Blocked tasks", tasks or '<p class="dim">none</p>',
                       "in uninterruptible sleep")  # fmt: skip
    if facts.queues:
        rows = "".join(
            f'<tr><td class="n">{queue.cpu}</td><td>{escape(queue.running)}</td>'
            f'<td class="n">{queue.length}</td><td>{escape(", ".join(queue.waiting))}</td></tr>'
            for queue in facts.queues
        )
        head = '<tr><th class="n">CPU</th><th>running</th><th class="n">tasks</th><th>waiting</th>'
        yield _section("Run queues", f"<table>{head}</tr>{rows}</table>")
    if facts.modules:
        yield _section("Modules", f"<p>{escape(' '.join(facts.modules))}</p>",
                       str(len(facts.modules)))  # fmt: skip
    if facts.log:
        yield _section("Log", f"<details><summary>Show</summary>{_log(facts)}</details>",
                       f"the last {min(len(facts.log), _LOG)} lines")  # fmt: skip


def _section(title: str, content: str, note: str = "", kind: str = "") -> str:
    small = f" <small>{escape(note)}</small>" if note else ""
    opening = f'<section class="{kind}">' if kind else "<section>"
    return f"{opening}<h2>{escape(title)}{small}</h2>{content}</section>"


def _stack(task: Task) -> str:
    lines: Sequence[str] = [f"#{number:<2} {text}" for number, text in enumerate(task.stack)]
    return f"<pre>{escape(chr(10).join(lines) or 'no backtrace')}</pre>"


def _log(facts: Facts, *, around: bool = False) -> str:
    lines = []
    for record in log.around(facts.log) if around else facts.log[-_LOG:]:
        text = escape(stamped(record))
        lines.append(f"<b>{text}</b>" if record.level <= 3 else text)
    return f"<pre>{chr(10).join(lines)}</pre>"
