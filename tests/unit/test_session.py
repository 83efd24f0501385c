# SPDX-License-Identifier: GPL-2.0-or-later
"""The session in the documents: it is the recorded one, and has the form that the code prints."""

import re
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest

from tests import session
from tests.fakehost import FakeHost
from tests.keyring import Keyring
from tests.session import Shown
from tinykdump import backup, cli, debuginfo, listing
from tinykdump.config import resolve
from tinykdump.image import makedumpfile
from tinykdump.listing import Found
from tinykdump.status import Status
from tinykdump.vmcoreinfo import Info

AGAIN = "the code prints it in another form now (run make session)"
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def recorded() -> tuple[Shown, ...]:
    return session.parse(session.TEXT.read_text())


def output(recorded: tuple[Shown, ...], command: str) -> str:
    return next(each for each in recorded if each.command.startswith(command)).output


def form(text: str) -> list[str]:
    """A text without its values: numbers, times, bars, and the padding between columns."""
    for pattern, name in (
        (r"\b([0-9A-F]{40}|[0-9a-f]{40}|[0-9a-f]{12}\b)", "ID"),
        (r"\d{4}-\d\d-\d\d[ -]\d\d:\d\d:\d\d( [A-Z]{3,5}\b)?", "TIME"),
        # A small size has no bar.
        (r"\d[\d.]* [MG]iB(  #+$)?", "SIZE"), (r"\d[\w.+-]*", "N"), (r" {2,}", "  "),
    ):  # fmt: skip
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return [line.rstrip() for line in text.splitlines()]


# The documents


@pytest.mark.parametrize("document", [session.README, session.PAGE], ids=lambda path: path.name)
def test_the_documents_have_the_session(document: Path, recorded: tuple[Shown, ...]) -> None:
    text = document.read_text()
    assert session.filled(text, recorded) == text, "run make session"
    assert len(session._MARKED.findall(text)) >= 2


def test_the_picture_has_the_session(recorded: tuple[Shown, ...]) -> None:
    svg = session.PICTURE.read_text()
    texts = re.findall(r"<text class=\"session-r[^>]*>(.*?)</text>", svg, re.DOTALL)
    drawn = re.sub(r"\s", "", unescape("".join(texts)))
    chosen = [each for each in recorded if each.command.startswith(session.IN_THE_PICTURE)]
    assert drawn == re.sub(r"\s", "", "".join(line for each in chosen for line in each.lines))


def test_the_picture_loads_nothing() -> None:
    """The only addresses are the names of SVG and of the program that drew it."""
    svg = session.PICTURE.read_text()
    assert set(re.findall(r"https?://[^\"\s]*", svg)) == {
        "http://www.w3.org/2000/svg", "https://www.textualize.io",
    }  # fmt: skip
    assert "url(http" not in svg


# The form


def test_the_form_of_the_status(recorded: tuple[Shown, ...], fake: FakeHost) -> None:
    lonely = backup.problem(fake.host, resolve([], {}), "F" * 40)
    made = Status(
        running="6.1", image_built=NOON, armed=True, loaded="6.1", loaded_at=NOON,
        reserved=96 << 20, needed=96 << 20, encrypted=True, key="F" * 40, key_expires=None,
        key_backup=None, target="LABEL=TINYKDUMP", stick="", stick_filesystem="", stick_free=None,
        expected_dump=97 << 20, dumps=None, incomplete_dumps=None, last_dump="", last_dump_at=None,
        crash_log="", crash=None, test=None, rehearsal=None, problems=(lonely,),
        notes=(makedumpfile.KEEPS_FREE_PAGES.note,),
    )  # fmt: skip
    assert form(output(recorded, "tinykdump status")) == form(made.to_text()), AGAIN


def test_the_form_of_the_build_and_the_estimate(
    recorded: tuple[Shown, ...], fake_with_programs: FakeHost, keys: Keyring,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fake = fake_with_programs
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    fake.write("/root/key.asc", keys.public("good@example.org"))
    fake.write("/etc/default/tinykdump", "[dump]\nkey = /root/key.asc\n")
    fake.write("/proc/meminfo", "MemTotal: 200000 kB\n")
    fake.module("kernel/fs/exfat/exfat.ko")
    assert cli.main(["--build"]) == 0
    shown = form(output(recorded, "tinykdump --build --load"))
    assert shown[:2] == form(capsys.readouterr().out), AGAIN
    assert cli.main(["estimate"]) == 0
    assert form(output(recorded, "tinykdump estimate")) == form(capsys.readouterr().out), AGAIN


def test_the_form_of_the_list(recorded: tuple[Shown, ...]) -> None:
    found = Found(
        time=NOON, machine="0123456789ab", here=True, kernel="6.1", panic="sysrq triggered crash",
        size=30 << 20, complete=True, encrypted=True, key=True, test=False, device="/dev/sda",
        directory="/dev/sda:tinykdump/0123456789ab/20261126T120000Z",
    )  # fmt: skip
    assert form(output(recorded, "tinykdump list")) == form(listing.to_text([found])), AGAIN


def test_the_form_of_the_advice(recorded: tuple[Shown, ...]) -> None:
    log, vmcore, *advice = output(recorded, "tinykdump restore").splitlines()
    assert log == str(Path(vmcore).with_name("vmcore-dmesg.txt"))
    kver = re.findall(r"symbols of (\S+) are", "\n".join(advice))[0]
    info = Info({"OSRELEASE": kver, "BUILD-ID": "0" * 40})
    expected = "\n".join(debuginfo.advice(Path(vmcore), info, None))
    assert form("\n".join(advice)) == form(expected), AGAIN


# The tool


def test_what_is_recorded_comes_back() -> None:
    shown = [Shown("a b", "one\ntwo: \033[32mgreen\033[0m\n"), Shown("crash", "")]
    text = session.text(shown)
    assert text.startswith(session.FIRST_LINE + "\n# a b\none\ntwo: green\n\n# crash\n")
    assert [each.lines for each in session.parse(text)] == [each.lines for each in shown]


def test_a_command_that_is_not_in_the_session() -> None:
    document = "<!-- session: nothing -->\n<!-- end of the session -->\n"
    with pytest.raises(RuntimeError, match="nothing"):
        session.filled(document, [Shown("a", "b")])


def test_text_for_the_manual_page_is_no_request() -> None:
    document = '.\\" session: a\n.\\" end of the session\n'
    filled = session.filled(document, [Shown("a", ".Sh x\n'y\n\\z\n")])
    assert filled.splitlines()[2:6] == ["# a", r"\&.Sh x", r"\&'y", r"\ez"]


def test_the_picture_wraps_and_keeps_colours() -> None:
    drawn = session.picture([Shown("tinykdump status", "\033[31m" + "x" * 150 + "\033[0m\n")])
    lines = re.findall(r">(x+)</text>", drawn)
    assert [len(line) for line in lines] == [session.WIDTH, 150 - session.WIDTH]
