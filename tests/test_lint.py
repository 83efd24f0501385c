# SPDX-License-Identifier: GPL-2.0-or-later
"""The checkers of style, types and shell scripts, as tests like all others."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
SHELLS = (b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash", b"#!/bin/busybox sh")


def tracked(*patterns: str) -> list[Path]:
    """The files of the repository, also those that are not committed yet."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    names = subprocess.run([*words, *patterns], cwd=CHECKOUT, capture_output=True, check=True,
                           text=True).stdout.split("\0")  # fmt: skip
    return [CHECKOUT / name for name in names if name and (CHECKOUT / name).is_file()]


def shell_scripts() -> list[Path]:
    """By their first line, or by the directive that says it for files without one."""
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


def test_shellcheck() -> None:
    scripts = shell_scripts()
    expected = {"init", "lib.sh", "check", "60-tinykdump.install"}
    assert expected <= {path.name for path in scripts}
    check("shellcheck", "--external-sources", *scripts)


LICENSE_LINE = re.compile(rb"SPDX-License-Identifier: [\w.-]+")
# What has no line of its own, each with its reason.
UNLICENSED = {
    "LICENSE": "is the license",
    "*.patch": "git format-patch writes them; what they change has its lines in the kernel",
    "*.json": "JSON has no comments",
}


def test_license_lines() -> None:
    """Each file says under which license it is, at its top (https://spdx.dev/ids)."""
    missing = [
        str(path.relative_to(CHECKOUT))
        for path in tracked()
        if not any(path.match(pattern) for pattern in UNLICENSED)
        and not any(map(LICENSE_LINE.search, path.read_bytes().split(b"\n")[:3]))
    ]
    assert missing == []
