# SPDX-License-Identifier: GPL-2.0-or-later
"""The services' units, as systemd reads them; tests/vm runs them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
UNITS = sorted((CHECKOUT / "src/systemd").glob("*.service"))


def analyze(*words: str | Path) -> str:
    assert shutil.which("systemd-analyze"), "systemd-analyze is not installed (run tools/deps)"
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, check=False, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_it_has_no_right_that_it_does_not_need(unit: Path) -> None:
    """From 0, safe, to 10; without any restriction it was 9.6."""
    said = analyze("security", "--offline=true", "--no-pager", unit)
    name = unit.name.replace("@.", "@i.")  # an instance
    found = re.search(rf"Overall exposure level for {name}: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= 3.5


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_it(tmp_path: Path, unit: Path) -> None:
    """The program is not installed here; anything else that it says is a mistake in the unit."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/usr/bin/tinykdump", "/bin/true"))
    assert analyze("verify", "--man=no", copy) == ""
