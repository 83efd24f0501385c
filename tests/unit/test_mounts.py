# SPDX-License-Identifier: GPL-2.0-or-later
"""Mounts of our own, of real file systems: they end, or an error says what to do."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import plugged
from tests.fakehost import FakeHost
from tinykdump import mounts
from tinykdump.errors import TinykdumpError
from tinykdump.run import Finished, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")

BELOW = Path("/run/tinykdump")


@pytest.fixture
def machine(fake: FakeHost) -> FakeHost:
    plugged.plug(fake, "ext4")
    return fake


def left(machine: FakeHost) -> list[Path]:
    return list(machine.path(str(BELOW)).iterdir())


def test_one_that_is_busy(machine: FakeHost) -> None:
    """umount says so, and no error about the directory hides that."""
    with (
        pytest.raises(TinykdumpError, match=r"^umount failed: .*busy.* \(close what uses the "),
        mounts.mounted(machine.host, Path("/dev/sdb1"), "ext4", below=BELOW) as place,
    ):
        used = (place / "file").open("w")
    used.close()
    subprocess.run(["umount", place], check=True)
    place.rmdir()


def test_ctrl_c_just_after_the_mount(machine: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(words: Sequence[str | Path], **given: str) -> Finished:
        done = run(words, hint=given["hint"])
        if words[0] == "mount":
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(mounts, "run", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        mounts.mounted(machine.host, Path("/dev/sdb1"), "ext4", below=BELOW),
    ):
        pytest.fail("the block ran")
    assert left(machine) == []


def test_one_that_cannot_be_mounted_leaves_nothing(machine: FakeHost) -> None:
    with (
        pytest.raises(TinykdumpError, match=r"^mount failed: "),
        mounts.mounted(machine.host, Path("/dev/sdb1"), "vfat", below=BELOW),
    ):
        pytest.fail("the block ran")
    assert left(machine) == []
