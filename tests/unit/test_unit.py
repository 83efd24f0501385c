# SPDX-License-Identifier: GPL-2.0-or-later
"""The services' units, as systemd reads them; tests/vm runs them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
UNITS = sorted((CHECKOUT / "src/systemd").glob("*.service"))


def analyze(*words: str | Path, units: Path | None = None) -> str:
    assert shutil.which("systemd-analyze"), "systemd-analyze is not installed (run tools/deps)"
    environment = {**os.environ, **({"SYSTEMD_UNIT_PATH": f"{units}:"} if units else {})}
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, check=False, text=True,
                          env=environment)  # fmt: skip
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


LATE = """\
[Unit]
DefaultDependencies=no
After=late.target
Before={}
[Service]
ExecStart=/bin/true
"""


@pytest.mark.parametrize(
    ("name", "waits"), [("tinykdump.service", True), ("tinykdump-harvest.service", False)]
)
def test_what_the_end_of_the_boot_waits_for(tmp_path: Path, name: str, waits: bool) -> None:
    """A service that starts after a target and before one that the target waits for is a cycle,
    which systemd finds."""
    text = (CHECKOUT / "src/systemd" / name).read_text().replace("/usr/bin/tinykdump", "/bin/true")
    units = {name: text, "late.service": LATE.format(name), "late.target": "[Unit]\n"}
    for unit, content in units.items():
        (tmp_path / unit).write_text(content)
    wants = tmp_path / "late.target.wants"
    wants.mkdir()
    for unit in (name, "late.service"):
        (wants / unit).symlink_to(tmp_path / unit)
    said = analyze("verify", "--man=no", tmp_path / "late.target", units=tmp_path)
    assert ("Found ordering cycle" in said) is waits, said
