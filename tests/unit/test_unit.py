# SPDX-License-Identifier: GPL-2.0-or-later
"""The service's unit, as systemd reads it; tests/vm/test_host.py runs it."""

import re
import shutil
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
UNIT = CHECKOUT / "src/systemd/tinykdump.service"


def analyze(*words: str | Path) -> str:
    assert shutil.which("systemd-analyze"), "systemd-analyze is not installed (run tools/deps)"
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, check=False, text=True)
    return done.stdout + done.stderr


def test_it_has_no_right_that_it_does_not_need() -> None:
    """From 0, safe, to 10; without any restriction it was 9.6."""
    said = analyze("security", "--offline=true", "--no-pager", UNIT)
    found = re.search(r"Overall exposure level for tinykdump.service: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= 3.5


def test_systemd_understands_it(tmp_path: Path) -> None:
    """The program is not installed here; anything else that it says is a mistake in the unit."""
    text = UNIT.read_text().replace("/usr/bin/tinykdump", "/bin/true")
    unit = tmp_path / UNIT.name
    unit.write_text(text)
    assert analyze("verify", "--man=no", unit) == ""
