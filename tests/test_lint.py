# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of style, types, shell scripts and spelling."""

import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
SHELLS = (b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash", b"#!/bin/busybox sh")


def tracked(*patterns: str) -> list[Path]:
    """The files of the repository, including those that are not committed yet."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    names = subprocess.run([*words, *patterns], cwd=CHECKOUT, capture_output=True, check=True,
                           text=True).stdout.split("\0")  # fmt: skip
    return [CHECKOUT / name for name in names if name and (CHECKOUT / name).is_file()]


def shell_scripts() -> list[Path]:
    """The files whose first line is that of a shell script, or that have a shellcheck directive."""
    return [
        path
        for path in tracked()
        if (start := path.open("rb").read(200)).startswith((*SHELLS, b"# shellcheck shell="))
        or b"\n# shellcheck shell=" in start
    ]


def check(*argv: str | Path) -> None:
    try:
        done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.fail(f"{argv[0]} is not installed (run tools/deps)")
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


def test_ruff_check() -> None:
    check(sys.executable, "-m", "ruff", "check")


def test_ruff_format() -> None:
    check(sys.executable, "-m", "ruff", "format", "--check")


def test_mypy() -> None:
    python = {path.relative_to(CHECKOUT).parts[0] for path in tracked("*.py")}
    check(sys.executable, "-m", "mypy", "--strict", *sorted(python))
    check(sys.executable, "-m", "mypy", "--strict", "--scripts-are-modules", "tools/rpm")


def test_shellcheck() -> None:
    scripts = shell_scripts()
    expected = {"init", "lib.sh", "stick.sh", "check", "60-tinykdump.install"}
    assert expected <= {path.name for path in scripts}
    check("shellcheck", "--external-sources", *scripts)


# Not checked for spelling: the license, data that was recorded or that fuzzing found, and patches,
# which follow the kernel's style.
FOREIGN = ("LICENSE", "*.patch", "*.json", "*.zip")
# Banned spelling -> what to write in documents, comments and messages. Names in code are free. Each
# entry is always wrong: a test cannot judge doubtful ones.
BANNED = {
    r"can not": "cannot",
    r"folders?": "directory, as everywhere else",
    r"stands? in(?! for)": "is in",
    r"for ever": "forever",
    r"licences?": "license, as everywhere else",
    r"allows? to": "allows X to, or lets",
    r"since \d+ (seconds|minutes|hours|days|weeks|months|years)": "for",
    r"depend(s|ing)? from": "depends on",
    r"consists? in": "consists of, or is",
    r"the both": "both",
    r"an other": "another",
}
# Between two words: a space, or the end of a line and the start of a comment, a string or a list.
GAP = r"(?: |\s*\n[\s#\"*>-]*)"

LICENSE_LINE = re.compile(rb"SPDX-License-Identifier: [\w.-]+")
# Files without a license line, with the reason.
UNLICENSED = {
    "LICENSE": "is the license",
    "*.patch": "git format-patch writes them; the files in the kernel have such lines",
    "*.json": "JSON has no comments",
    "*.zip": "has only inputs that fuzzing found",
    "debian/changelog": "dpkg knows no comments in it",
    "debian/copyright": "is about licenses",
    "debian/source/format": "dpkg knows no comments in it",
}


def test_license_lines() -> None:
    """Each file names its license in its first lines (https://spdx.dev/ids)."""
    missing = [
        str(path.relative_to(CHECKOUT))
        for path in tracked()
        if not any(path.match(pattern) for pattern in UNLICENSED)
        and not any(map(LICENSE_LINE.search, path.read_bytes().split(b"\n")[:3]))
    ]
    assert missing == []


def prose(source: bytes, *, python: bool) -> str:
    """The text that people read: all of a file, or the comments and strings of Python code."""
    if not python:
        return source.decode()
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    text = ""
    for token in tokenize.tokenize(io.BytesIO(source).readline):
        if token.type in kinds:
            # Before Python 3.12, an f-string is a single token that includes the names.
            words = re.sub(r"\{[^{}]*\}", "", token.string)
            text += "\n" * (token.start[0] - 1 - text.count("\n")) + f" {words}"
    return text


def banned(text: str) -> list[str]:
    """The banned spellings in a text, with their lines; a spelling can span two lines."""
    return [
        f"{text[: match.start()].count(chr(10)) + 1}: {match[0]!r} (write: {instead})"
        for pattern, instead in BANNED.items()
        for match in re.finditer(rf"\b(?:{pattern.replace(' ', GAP)})\b", text, re.IGNORECASE)
    ]


def test_banned_spellings() -> None:
    found = [
        f"{path.relative_to(CHECKOUT)}:{line}"
        for path in tracked()
        if path != Path(__file__) and not any(path.match(pattern) for pattern in FOREIGN)
        for line in banned(prose(path.read_bytes(), python=path.suffix == ".py"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        (b"folder = 1\n\nx = f'{folder}/y'  # a folder", ["3"]),
        (b"# What\n# can\n# not be", ["2"]),
        (b'"""One.\n\nCan not.\n"""\nf("it can"\n  " not")', ["3"]),
        (b"'cannot', 'stands in for', 'subfolders', 'allows X to'", []),
    ],
)
def test_banned_spellings_are_found(source: bytes, lines: list[str]) -> None:
    assert [line.split(":")[0] for line in banned(prose(source, python=True))] == lines


def test_codespell() -> None:
    """[tool.codespell] in pyproject.toml lists correct words that it does not know."""
    texts = [path for path in tracked() if not any(path.match(name) for name in FOREIGN)]
    check(sys.executable, "-m", "codespell_lib", *texts)
