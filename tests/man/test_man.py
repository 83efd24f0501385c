# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual pages are valid, and agree with the code in both directions."""

import argparse
import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from tinykdump import (
    backup,
    cli,
    config,
    errors,
    grammar,
    harvest,
    kernels,
    keys,
    notice,
    rehearsal,
    reservation,
    state,
    status,
    trial,
)
from tinykdump.filesystems import AUTO, FILESYSTEMS
from tinykdump.image import programs
from tinykdump.status import Crash, Rehearsal, Status, Trial

CHECKOUT = Path(__file__).parents[2]
COMMANDS, SETTINGS = CHECKOUT / "man/tinykdump.8", CHECKOUT / "man/tinykdump.5"

# Files that readers of the page do not need: the command itself, the Python package, the pages, the
# completions.
UNNAMED = ("usr/bin/", "usr/lib/python3/", "usr/share/man/", "usr/share/licenses/",
           "usr/share/bash-completion/", "usr/share/zsh/", "usr/share/fish/")  # fmt: skip


def section(page: Path, name: str) -> list[str]:
    """The lines below a heading, up to the next heading of the same kind."""
    lines = page.read_text().splitlines()
    kind = ".Ss" if f".Ss {name}" in lines else ".Sh"
    start = lines.index(f"{kind} {name}") + 1
    ends = [at for at, line in enumerate(lines) if at >= start and line.startswith((".Sh", kind))]
    return lines[start : ends[0]]


def heads(page: Path, name: str, macro: str) -> list[str]:
    """The texts after ``.It MACRO`` in a section."""
    starts = f".It {macro} " if macro else ".It "
    lines = section(page, name)
    return [line.removeprefix(starts) for line in lines if line.startswith(starts)]


@pytest.mark.parametrize("page", [COMMANDS, SETTINGS], ids=lambda page: page.name)
def test_pages_are_valid(page: Path) -> None:
    done = subprocess.run(["mandoc", "-T", "lint", page], capture_output=True, text=True,
                          check=False)  # fmt: skip
    # Whether other pages are installed depends on this machine.
    found = [line for line in done.stdout.splitlines() if "referenced manual not found" not in line]
    assert found == []
    shown = subprocess.run(["mandoc", "-T", "utf8", page], capture_output=True, check=True).stdout
    assert b"TINYKDUMP" in shown


def takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def expected(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Option -> the name of its value, without the options that every command has."""
    return {
        option: (action.metavar or action.dest.upper()) if takes_value(action) else ""
        for action in parser._actions
        for option in action.option_strings
        if isinstance(action.metavar, str | None)
    }


def described(lines: list[str]) -> dict[str, dict[str, str]]:
    """Command ("" for none) -> option -> the name of its value, from the page."""
    found: dict[str, dict[str, str]] = {"": {}}
    command = ""
    for line in lines:
        if match := re.match(r"\.It Cm (\w+)", line):
            command = match[1]
            found[command] = {}
        elif line.startswith(".It Fl"):
            names, _, value = line.removeprefix(".It ").partition(" Ar ")
            for name in names.split(" , "):
                found[command][f"-{name.removeprefix('Fl ')}"] = value
    return found


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = grammar.parser()._actions
    (chosen,) = (each for each in actions if isinstance(each, argparse._SubParsersAction))
    return dict(chosen.choices)


def test_options_and_commands() -> None:
    page = described([*section(COMMANDS, "Options"), *section(COMMANDS, "Commands")])
    known = {"": expected(grammar.parser())}
    for name, parser in commands().items():
        known[name] = expected(parser)
        del known[name]["-h"], known[name]["--help"]
    assert page == known


def test_arguments_of_commands() -> None:
    page = {
        head.split()[0]: re.findall(r"Ar (\S+)", head) for head in heads(COMMANDS, "Commands", "Cm")
    }
    known = {
        name: [action.dest for action in parser._actions if not action.option_strings]
        for name, parser in commands().items()
    }
    assert page == known


def test_keys_and_defaults() -> None:
    page = []
    for name in dict.fromkeys(item.section for item in config.ITEMS):
        for head in heads(SETTINGS, f"The section {name}", "Ic"):
            match = re.fullmatch(r"(\w+) No =(?: Li (.*))?", head)
            assert match, f"{head!r} is not: KEY No = Li DEFAULT"
            page.append((name, match[1], match[2] or ""))
    assert page == [(item.section, item.key, item.default) for item in config.ITEMS]
    sections = re.findall(r"^\.Ss The section (\w+)$", SETTINGS.read_text(), re.MULTILINE)
    assert sections == list(dict.fromkeys(item.section for item in config.ITEMS))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("filesystems", (AUTO, *FILESYSTEMS)),
        ("compression", config.COMPRESSIONS),
        ("final_action", config.FINAL_ACTIONS),
    ],
)
def test_choices(key: str, words: tuple[str, ...]) -> None:
    """The page lists exactly the values that the key can have."""
    lines = SETTINGS.read_text().splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(f".It Ic {key} "))
    end = next(
        at for at, line in enumerate(lines) if at > start and line.startswith((".It", ".El"))
    )
    found = [word for line in lines[start + 1 : end] if line.startswith(".Sy ")
             for word in re.findall(r"\w+", line.removeprefix(".Sy "))]  # fmt: skip
    assert sorted(found) == sorted(words)


def test_the_quick_start_has_valid_command_lines() -> None:
    """The parser takes each of them."""
    shown = section(COMMANDS, "Quick start")
    lines = [line[2:].partition("  #")[0].split() for line in shown if line[:6] == "# tiny"]
    said = {grammar.parser().parse_args(line[1:]).command for line in lines}
    assert said == {"prepare", "status", "key", "list", "restore", "report", "test"}


def test_variables() -> None:
    texts = [path.read_text() for path in (*CHECKOUT.glob("src/tinykdump/**/*.py"),
             CHECKOUT / "src/tinykdump.sh", *CHECKOUT.glob("kernel-install.d/*"))]  # fmt: skip
    pattern = re.compile(r'environ(?:ment)?(?:\.get\(|\[)"(\w+)"|\$\{(\w+):-')
    known = {python or shell for text in texts for python, shell in pattern.findall(text)}
    assert set(heads(COMMANDS, "ENVIRONMENT", "Ev")) == known


def test_exit_statuses() -> None:
    known = {0, errors.TinykdumpError.exit_status, errors.UsageError.exit_status,
             cli.INTERRUPTED, cli.UNKNOWN}  # fmt: skip
    assert {int(head) for head in heads(COMMANDS, "EXIT STATUS", "")} == known


def test_the_keys_of_status_as_json() -> None:
    """The page has all of them in order: a key that is renamed breaks programs."""
    names = ["version", *(field.name for field in fields(Status)), "next"]
    for name, kind in (("crash", Crash), ("test", Trial), ("rehearsal", Rehearsal)):
        at = names.index(name) + 1
        names[at:at] = [f"{name}.{field.name}" for field in fields(kind)]
    assert heads(COMMANDS, "The status as JSON", "Ic") == names
    assert status.VERSION == 1


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> frozenset[str]:
    """The files that `make install` installs."""
    place = tmp_path_factory.mktemp("installed")
    command = ["make", "--no-print-directory", "install", f"DESTDIR={place}"]
    subprocess.run(command, check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    return frozenset(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


def test_files(installed: frozenset[str]) -> None:
    """The pages name them, but for those that users need not know."""
    named = set(heads(COMMANDS, "FILES", "Pa"))
    used = {
        str(config.FILE), str(config.DROP_INS), str(state.IMAGES / "KVER"), str(keys.MACHINE_KEYS),
        str(backup.NOTE), str(notice.NOTE), str(notice.MOTD), str(trial.NOTE), str(rehearsal.NOTE),
        str(rehearsal.CONSOLE),
        str(state.RUNTIME), str(programs.CRASH_SIDE[0]), str(reservation._SIZE[0]),
        str(harvest.NOTES), str(kernels.SMALL_IMAGE.parent), "tinykdump/MACHINE/TIME",
    }  # fmt: skip
    directories = tuple(f"{name}/" for name in used)
    names = {f"/{name}" for name in installed if not name.startswith(UNNAMED)}
    shipped = {name for name in names if not name.startswith(directories)}
    assert named == used | shipped


def test_pages_are_installed(installed: frozenset[str]) -> None:
    for name in ("man/man5/tinykdump.5", "man/man8/tinykdump.8", "licenses/tinykdump/LICENSE"):
        assert f"usr/share/{name}" in installed


def test_messages_in_examples_are_real() -> None:
    """The error in the page's example gives the message that it shows."""
    shown = next(line for line in section(SETTINGS, "EXAMPLES") if line.startswith("tinykdump: "))
    with pytest.raises(errors.UsageError) as raised:
        config.parse_file("[dump]\nwiat = 3\n", "/etc/default/tinykdump.d/site.conf")
    assert shown == f"tinykdump: {raised.value}"
