# SPDX-License-Identifier: GPL-2.0-or-later
"""The coverage that make check prints, and the hook of pre-commit."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rpm import repository

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.slow
def test_check_prints_the_coverage_of_src(tmp_path: Path) -> None:
    """With its own options, on one file of tests; also for modules that no test imports."""
    shown = subprocess.run(["make", "--dry-run", "check"], cwd=CHECKOUT, check=True,
                           capture_output=True, text=True).stdout  # fmt: skip
    lines = shown.replace("\\\n", " ").splitlines()
    words = shlex.split(next(line for line in lines if "pytest" in line))
    options = [word for word in words if word.startswith(("--cov", "--num", "--dist"))]
    command = [sys.executable, "-m", "pytest", *options, "tests/unit/test_memory.py"]
    # Keep its data apart from that of the tests that run this one.
    environment = {"PATH": os.environ["PATH"], "COVERAGE_FILE": str(tmp_path / "coverage")}
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^src/tinykdump/restore\.py +\d+ +\d+ +0%", done.stdout, re.MULTILINE)
    total = re.search(r"^TOTAL +\d+ +\d+ +(\d+)%", done.stdout, re.MULTILINE)
    assert total and 0 < int(total[1]) < 50


@pytest.mark.slow
@pytest.mark.checkout
def test_pre_commit_runs_the_linters(short_path: Path) -> None:
    """The real pre-commit, in a clone, with one of the linters and without a network."""
    clone = repository.clone(short_path / "clone")
    (clone / ".venv").symlink_to(sys.prefix)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(short_path),
        "https_proxy": "127.0.0.1:9",
        "PYTEST_ADDOPTS": "-k test_banned_spellings",
    }
    found = []
    for text in ("That cannot be.\n", "That can " + "not be.\n"):
        (clone / "new.md").write_text(text)
        repository.git(clone, "add", "new.md")
        command = [str(clone / ".venv/bin/pre-commit"), "run"]
        found.append(subprocess.run(command, cwd=clone, env=environment, capture_output=True,
                                    text=True, check=False))  # fmt: skip
    good, bad = found
    assert good.returncode == 0, good.stdout + good.stderr
    assert bad.returncode == 1
    assert "new.md:1: 'can " + "not' (write: cannot)" in bad.stdout
