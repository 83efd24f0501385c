# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user sees: a session in a guest, as text and as a picture, for the documents.

`make demo` records it. `python -m tests.session`, which is `make session`, performs the demo's
first act and puts its session into docs/, the README and the manual page, between marks.
"""

import io
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.vm import service
from tests.vmtest.errors import Result
from tests.vmtest.vm import VM

REPOSITORY = service.REPOSITORY
TEXT = REPOSITORY / "docs/session.txt"
PICTURE = REPOSITORY / "docs/session.svg"
README = REPOSITORY / "README.md"
PAGE = REPOSITORY / "man/tinykdump.8"

LICENSE = "SPDX-License-Identifier: GPL-2.0-or-later"
FIRST_LINE = f"This is real: make session recorded it.  {LICENSE}\n"

# Columns of the picture; longer lines are wrapped.
WIDTH = 100
# These are in the picture: it is to fit on a screen.
IN_THE_PICTURE = ("tinykdump status", "echo c", "tinykdump list", "tinykdump restore")

# Between the marks is what these commands printed, by the start of the command.
_MARKED = re.compile(
    r'^(?P<start>(?:<!--|\.\\") session: (?P<commands>.*?)(?: -->)?\n)'
    r'(?P<body>.*?)(?P<end>^(?:<!--|\.\\") end of the session(?: -->)?\n)',
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Shown:
    """A command and its output, as a terminal with colours got it."""

    command: str
    output: str

    @property
    def lines(self) -> tuple[str, ...]:
        """Both, without colours."""
        return (f"# {self.command}", *Text.from_ansi(self.output).plain.splitlines())


class Recorder:
    """Runs commands on a terminal in a guest, and keeps what that shows."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []

    def run(self, vm: VM, *command: str) -> Result:
        """Run a command, and record it. Raises GuestFailed."""
        words = ["script", "--quiet", "--return", "--command", shlex.join(command), "/dev/null"]
        done = vm.run(words, env={"TERM": "xterm-256color"})
        self.note(shlex.join(command), done.text.replace("\r", ""))
        return done

    def note(self, command: str, output: str = "") -> None:
        """Record a command that was run otherwise."""
        self.shown.append(Shown(command, output))


def text(shown: Sequence[Shown]) -> str:
    """The session as a file."""
    return FIRST_LINE + "".join("\n" + "\n".join(each.lines) + "\n" for each in shown)


def parse(content: str) -> tuple[Shown, ...]:
    """The session in such a file, without colours."""
    parts = content.partition("\n\n# ")[2].rstrip("\n").split("\n\n# ")
    found = (part.partition("\n") for part in parts)
    return tuple(Shown(command, output) for command, _, output in found)


def picture(shown: Sequence[Shown]) -> str:
    """The session as an SVG, which brings its own dark background and loads nothing."""
    screen = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True,
                     color_system="truecolor")  # fmt: skip
    for each in shown:
        if each.command.startswith(IN_THE_PICTURE):
            screen.print(f"[bold cyan]#[/] [bold]{each.command}[/]", highlight=False)
            if each.output:
                screen.print(Text.from_ansi(each.output.rstrip("\n")))
    drawn = screen.export_svg(title="tinykdump", unique_id="session")
    # Without the fonts, which a browser would get from somebody else's server.
    drawn = re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    return f"<!-- {LICENSE} -->\n{drawn}"


def filled(document: str, shown: Sequence[Shown]) -> str:
    """A document with the session between its marks.

    Raises RuntimeError for a command that is not in the session.
    """

    def part(start: str) -> Shown:
        for each in shown:
            if each.command.startswith(start):
                return each
        raise RuntimeError(f"the session has no command that starts with {start!r}")

    def body(mark: re.Match[str]) -> str:
        lines = [line for start in mark["commands"].split("; ") for line in part(start).lines]
        is_page = mark["start"].startswith(".")
        return mark["start"] + (_roff(lines) if is_page else _markdown(lines)) + mark["end"]

    return _MARKED.sub(body, document)


def _markdown(lines: Sequence[str]) -> str:
    return "\n" + "".join(f"    {line}".rstrip() + "\n" for line in lines) + "\n"


def _roff(lines: Sequence[str]) -> str:
    """Literal text for mandoc; a line must not begin like a request."""
    safe = (re.sub(r"^(?=[.'])", r"\\&", line.replace("\\", r"\e")) for line in lines)
    return ".Bd -literal -offset indent\n" + "".join(f"{line}\n" for line in safe) + ".Ed\n"


def publish(recorded: Path) -> None:
    """Put a session that was recorded into the documents."""
    content = (recorded / "session.txt").read_text()
    TEXT.parent.mkdir(exist_ok=True)
    TEXT.write_text(content)
    PICTURE.write_text((recorded / "session.svg").read_text())
    for document in (README, PAGE):
        document.write_text(filled(document.read_text(), parse(content)))


def main() -> int:
    """Perform the demo's first act, and publish its session."""
    from tests import demo  # noqa: PLC0415 - which imports this module

    if status := demo.main(("stock",)):
        return status
    publish(demo.OUTPUT / "stock")
    return 0


if __name__ == "__main__":
    sys.exit(main())
