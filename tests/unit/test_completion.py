# SPDX-License-Identifier: GPL-2.0-or-later
"""The completions match the parser, and the real shells complete what is typed."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.fakehost import real
from tinykdump import grammar
from tools import completion

CHECKOUT = Path(__file__).parents[2]
SECONDS = 120

# The name of the shell -> what it reads first. A command of that name shows its arguments.
# zsh would take the slash of a directory away before Enter.
START = {
    "bash": "PS1=; source {place}/tinykdump.bash\n",
    "zsh": "PS1=; fpath=({place} $fpath); autoload -U compinit; compinit -u -D; "
           "setopt no_beep no_auto_remove_slash\n",
}  # fmt: skip
NAMES = ("tinykdump.bash", "_tinykdump", "tinykdump.fish")
SHOW = "tinykdump() { printf '<%s>' \"$@\"; printf '|end\\n'; }\n"
WORDS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, as make install writes them."""
    made = tmp_path_factory.mktemp("completion")
    tool = CHECKOUT / "tools/completion.py"
    subprocess.run([sys.executable, tool, *(made / name for name in NAMES)], check=True)
    return made


def completed(place: Path, shell: str, lines: Sequence[str], directory: Path) -> list[list[str]]:
    """The words that a shell, at a terminal, makes of each line when TAB is pressed at its end."""
    ours, theirs = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": "dumb", "HOME": str(directory),
                   "COLUMNS": "1000"}  # fmt: skip
    running = subprocess.Popen([real(shell), *WORDS[shell]], stdin=theirs, stdout=theirs,
                               stderr=theirs, cwd=directory, env=environment,
                               start_new_session=True)  # fmt: skip
    os.close(theirs)
    try:
        _answer(ours, START[shell].format(place=place) + SHOW + "echo rea''dy\n", "ready\r\n")
        return [_words(_answer(ours, f"tinykdump {line}\t\n", "|end\r\n")) for line in lines]
    finally:
        running.kill()
        running.wait()
        os.close(ours)


def _answer(terminal: int, typed: str, end: str) -> str:
    """What the terminal shows, up to ``end``."""
    os.write(terminal, typed.encode())
    shown = ""
    while end not in shown:
        shown += os.read(terminal, 1 << 16).decode(errors="replace")
    return shown.split(end)[0]


def _words(shown: str) -> list[str]:
    return re.findall(r"<([^<>]*)>", shown)


def fish(place: Path, lines: Sequence[str], directory: Path) -> list[list[str]]:
    """What fish offers for each line."""
    asked = "\n".join(f"echo; echo ==; complete -C {completion._fish('tinykdump ' + line)}"
                      for line in lines)  # fmt: skip
    script = f"source {place / 'tinykdump.fish'}\n{asked}\n"
    done = subprocess.run([real("fish"), "--no-config", "-c", script], cwd=directory, check=True,
                          capture_output=True, text=True, timeout=SECONDS,
                          env={"PATH": os.environ["PATH"], "HOME": str(directory)})  # fmt: skip
    assert done.stderr == ""
    return [[line.split("\t")[0] for line in part.splitlines() if line]
            for part in done.stdout.split("\n==\n")[1:]]  # fmt: skip


def expected() -> Mapping[str, str]:
    """Line -> its last word when it is completed, for each name that is one letter short."""
    found = {}
    commands = completion.read(grammar.parser())
    for command in commands:
        names = [name for option in command.options for name in option.names]
        if not command.name:
            names += [each.name for each in commands[1:]]
        names += [word for each in command.arguments for word in each.words]
        for name in names:
            short = name[:-1]
            if len(short) > 2 and [each for each in names if each.startswith(short)] == [name]:
                found[f"{command.name} {short}".strip()] = name
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Files to complete."""
    (tmp_path / "only.conf").touch()
    (tmp_path / "dumps here").mkdir()
    return tmp_path


# Line -> the words of which it is the start.
VALUES = {
    "-c on": ["-c", "only.conf"],
    "--config only.conf sta": ["--config", "only.conf", "status"],
    "-m a,b est": ["-m", "a,b", "estimate"],
    "prepare --filesystem exf": ["prepare", "--filesystem", "exfat"],
    "prepare on": ["prepare", "only.conf"],
    "restore dumps": ["restore", "dumps here/"],
    "restore -o dumps": ["restore", "-o", "dumps here/"],
    "key backup on": ["key", "backup", "only.conf"],
}


def test_the_parser_is_all_there() -> None:
    lines = expected()
    assert {"prepar", "status --jso", "key backu", "--modul"} <= set(lines)
    assert len(lines) > 30


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("shell", START)
def test_a_shell_at_a_terminal(place: Path, shell: str, directory: Path) -> None:
    lines = {**{line: [*line.split()[:-1], last] for line, last in expected().items()}, **VALUES}
    found = completed(place, shell, list(lines), directory)
    assert dict(zip(lines, found, strict=True)) == lines


@pytest.mark.timeout(SECONDS)
def test_bash_takes_an_equals_sign_apart(place: Path, directory: Path) -> None:
    lines = {
        "--config=on": ["--config=only.conf"],
        "--config=only.conf sta": ["--config=only.conf", "status"],
    }
    assert completed(place, "bash", list(lines), directory) == list(lines.values())


def test_fish(place: Path, directory: Path) -> None:
    lines = {**{line: [last] for line, last in expected().items()},
             **{line: [words[-1]] for line, words in VALUES.items()}}  # fmt: skip
    found = fish(place, list(lines), directory)
    assert dict(zip(lines, found, strict=True)) == lines
    (kernels,) = fish(place, ["--kernel "], directory)
    modules = Path("/lib/modules")
    there = [path.name for path in modules.iterdir()] if modules.is_dir() else []
    assert sorted(kernels) == sorted(there)


def test_nothing_is_offered_where_nothing_fits(place: Path, directory: Path) -> None:
    """No files after commands that take none, and no commands after a command."""
    assert fish(place, ["status ", "status sta", "log on"], directory) == [[], [], []]
    assert completed(place, "bash", ["log on"], directory) == [["log", "on"]]
    assert completed(place, "zsh", ["log on"], directory) == [["log", "on"]]


def test_quotes_in_help_do_no_harm(directory: Path) -> None:
    """Each shell reads what is written for a parser with all of its special characters."""
    top = grammar.parser()
    top.add_argument("--odd", metavar="FILE", help='it\'s $(touch x) `touch x` [a]: \\ "b"')
    for shell, text in zip(("bash", "zsh", "fish"), completion.texts(top), strict=True):
        file = directory / shell
        file.write_text(text)
        done = subprocess.run([real(shell), "-n", file], capture_output=True, text=True,
                              check=False)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), shell
    assert not (directory / "x").exists()
