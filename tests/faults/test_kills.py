# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGKILL at every step of build and publish; services.py has the steps of resize and load."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fakehost
from tests.fakehost import FakeHost

KILLER = Path(__file__).parent / "killer.py"
STEPS = 200  # there are fewer


def build(machine: FakeHost, *before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *(before or ("-m", "tinykdump")), "-b"], check=False,
        capture_output=True, text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": fakehost.SOURCE,
             "TINYKDUMP_ROOT": str(machine.root)},
    )  # fmt: skip


@pytest.mark.slow
def test_a_build_that_is_killed_is_repaired_by_the_next_one(fake_with_programs: FakeHost) -> None:
    """A new image is built over an old one. Until the end, the old one is whole."""
    machine = fake_with_programs
    wait, places = 5, list[list[str]]()
    for number in range(1, STEPS):
        wait += 1
        machine.write("/etc/default/tinykdump", f"[dump]\nencrypt = no\nwait = {wait}\n")
        before = machine.snapshot() if places else {}
        killed = build(machine, str(KILLER), str(number), "all")
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        places.append(killed.stdout.split()[:2])
        after = machine.snapshot()
        manifest = f"images/{fakehost.KVER}/manifest.json"
        if before and after[manifest] == before[manifest]:
            assert {name: after[name] for name in before} == before, f"changed at {places[-1]}"
        repaired = build(machine)
        assert repaired.returncode == 0, f"killed at {places[-1]}: {repaired.stderr}"
        names = sorted(Path(name).name for name in machine.snapshot(fakehost.STATE))
        image, *others = names
        assert image.startswith("initramfs-"), f"{places[-1]}: {names}"
        assert others == ["manifest.json", "modules.json"], f"{places[-1]}: {names}"
        left = sorted(machine.snapshot("/run/tinykdump"))
        assert left == ["lock"], f"killed at {places[-1]}: {left}"
    assert 10 < len(places) < STEPS - 1, places
