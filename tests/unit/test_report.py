# SPDX-License-Identifier: GPL-2.0-or-later
"""A report as text and as a page: what it has, and that no text of a vmcore leaves its place."""

from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tinykdump import cli
from tinykdump.errors import TinykdumpError
from tinykdump.text import escaped, short
from tinykdump.vmcore import lines, page, reader
from tinykdump.vmcore.facts import Facts, Kind, Memory, Queue, Record, Task

EVIL = "</pre><script>alert('x')</script>\"&<style>"

TASK = Task(42, EVIL, "D", 3 << 20, 1, (f"crash_me at {EVIL}:1", "do_syscall_64"))
FACTS = Facts(
    vmcore=f"/x/{EVIL}/vmcore", release="6.12", build_id="ab" * 20, host=EVIL,
    crashed="2026-11-23 03:38:08 UTC", uptime=3725.0, reason=f"Fatal {EVIL}", taint=f"G {EVIL}",
    modules=(EVIL, "ext4"), log=(Record(1.0, 6, "boot"), Record(3725.0, 0, EVIL)),
    crashing=TASK, memory=Memory((Kind(EVIL, 3 << 30), Kind("free", 1 << 30)), EVIL), tasks=7,
    top=(TASK,), blocked=(TASK,), queues=(Queue(0, EVIL, 2, (EVIL,)),), missing=(EVIL,),
)  # fmt: skip


class Reader(HTMLParser):
    """What a browser sees: tags, and text by the tag that it is in."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}
        if tag not in ("meta", "rect", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)


def seen(content: str) -> Reader:
    found = Reader()
    found.feed(content)
    found.close()
    assert found.open == []
    return found


def test_the_page_escapes_everything() -> None:
    """Every field has a text that would close its element and run a script."""
    assert all(getattr(FACTS, each.name) for each in fields(FACTS))
    found = seen(page.render(FACTS))
    assert "script" not in found.tags
    assert not {name for name, _ in found.attributes} & {"src", "href", "onload", "style", "action"}
    assert sum(EVIL in each for each in found.texts) >= 14
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in found.attributes


def test_the_page_has_all_sections() -> None:
    whole = " ".join(seen(page.render(FACTS)).texts)
    for title in ("Summary", "Crashing task", "Log around the crash", "Log over time",
                  "Memory by kind", "Most memory", "Blocked tasks", "Run queues", "Modules",
                  "Not shown"):  # fmt: skip
        assert title in whole
    assert "3.0 GiB, 75 %" in whole
    assert "uptime 1:02:05" in " ".join(whole.split())


def test_what_is_not_known_is_left_out() -> None:
    found = seen(page.render(Facts("/x/vmcore")))
    assert "svg" not in found.tags
    assert "Kernel crash" in found.texts
    assert lines.render(Facts("/x/vmcore")).splitlines() == [
        "taint:    none", "vmcore:   /x/vmcore",
    ]  # fmt: skip


def test_sizes_that_are_zero() -> None:
    zero = replace(FACTS, memory=Memory((Kind("free", 0),), "x"), top=(replace(TASK, memory=0),),
                   log=FACTS.log[:1])  # fmt: skip
    seen(page.render(zero))
    assert "free" in lines.render(zero)


def test_the_text() -> None:
    shown = lines.render(replace(FACTS, reason="Fatal exception")).splitlines()
    assert shown[0] == "panic:    Fatal exception"
    assert f"Crashing task: {EVIL} (PID 42, state D, CPU 1, 3.0 MiB)" in shown
    assert "    #1  do_syscall_64" in shown
    assert f"    [ 3725.000000] {EVIL}" in shown
    assert shown[shown.index("Not shown") + 1] == f"    {EVIL}"


@pytest.mark.parametrize(
    ("given", "shown"),
    [("a\tb\n", "a\tb\n"), ("\x1b]0;x\x07", "\\x1b]0;x\\x07"), ("\u202e\u2028", "\\u202e\\u2028"),
     ("\udcff", "\\udcff"), ("\u00e9", "\u00e9")],
)  # fmt: skip
def test_escaped(given: str, shown: str) -> None:
    assert escaped(given) == shown


def test_short() -> None:
    assert short(b"a\n\xff" + b"x" * 100, 10) == "a\\n\ufffdxxxxx\u2026"
    assert short("x" * 10, 10) == "x" * 10
    assert short("\x1b" * 9, 10).isprintable()


def test_a_part_that_fails_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = reader.Reading()

    def cyclic() -> int:
        while True:
            pass

    def damaged() -> int:
        raise LookupError("no \x1b symbol")

    monkeypatch.setattr(reader, "_LIMIT", 1)
    assert reading.take("tasks", cyclic, 3) == 3
    assert reading.take("queues", damaged, 4) == 4
    assert reading.take("log", lambda: 5, 6) == 5
    assert reading.missing == ["tasks: not read within 1 s", "queues: no \\x1b symbol"]


def test_the_page_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reader, "read", lambda *_: FACTS)
    target = tmp_path / "page.html"
    assert cli.main(["report", "x", "--html", str(target)]) == 0
    assert target.read_text() == page.render(FACTS)
    target.write_text("mine")
    assert cli.main(["report", "x", "--html", str(target)]) == 1
    assert target.read_text() == "mine"
    assert "page.html: File exists (name a new one)" in capfd.readouterr().err


def test_a_page_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is known before the vmcore is read, and nothing is left of it afterwards."""
    reads: list[object] = []

    def fails(*_: object) -> Facts:
        reads.append(1)
        raise TinykdumpError("x is no vmcore", "name another one")

    monkeypatch.setattr(reader, "read", fails)
    assert cli.main(["report", "x", "--html", str(tmp_path / "none/page.html")]) == 1
    assert "page.html: No such file or directory (check its path)" in capfd.readouterr().err
    assert not reads
    assert cli.main(["report", "x", "--html", str(tmp_path / "page.html")]) == 1
    assert capfd.readouterr().err == "tinykdump: x is no vmcore (name another one)\n"
    assert not (tmp_path / "page.html").exists()
