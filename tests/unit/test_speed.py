# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the next dump is expected to be, and on what ground."""

import os
from pathlib import Path

import pytest

from tests import plugged
from tests.fakehost import FakeHost
from tinykdump import dump, hardware, speed, stick
from tinykdump.crashlog import CrashLog

MIB = 1 << 20
LOG = CrashLog(
    "<13>[   10.000000] tinykdump: [10.00 s] saving the memory\n"
    "<13>[   39.000000] tinykdump: the dump takes 150 MiB\n"
    "<13>[   40.000000] tinykdump: [40.00 s] saved as tinykdump/a/b",
    is_whole=True,
)


def saved(fake: FakeHost, name: str, *, seconds: float = 20, size: int = 40 * MIB) -> Path:
    """A dump on the stick that is mounted on /mnt, as the crash kernel leaves it."""
    place = fake.path(f"/mnt/tinykdump/{hardware.machine_name(fake.host)}/{name}")
    place.mkdir(parents=True)
    log, memory, sums = (place / each for each in
                         ("dmesg.txt.gpg.000", "vmcore.flat.gpg.000", dump.SUMS))  # fmt: skip
    log.write_bytes(b"log")
    memory.write_bytes(b"")
    os.truncate(memory, size)
    sums.write_text("")
    os.utime(log, (1000, 1000))
    os.utime(sums, (1000 + seconds, 1000 + seconds))
    return place


def expected(fake: FakeHost, log: CrashLog | None = None) -> speed.Speed | None:
    found = stick.find(fake.host, "LABEL=TINYKDUMP")
    return speed.expected(fake.host, found[0] if found else None, log)


@pytest.fixture
def mounted(fake: FakeHost) -> FakeHost:
    plugged.plug(fake, "vfat")
    fake.write("/proc/self/mountinfo", "30 27 8:17 / /mnt rw shared:2 - vfat /dev/sdb1 rw\n")
    fake.path("/mnt").mkdir()
    return fake


def test_as_the_newest_complete_dump_on_the_stick(mounted: FakeHost) -> None:
    saved(mounted, "20260101T000000Z", seconds=10)
    saved(mounted, "20260102T000000Z")
    saved(mounted, "20260103T000000Z.partial", seconds=5)
    assert expected(mounted, LOG) == speed.Speed(
        2 * MIB, "as the dump 20260102T000000Z", is_read=False
    )


def test_the_users_script_does_not_count(mounted: FakeHost) -> None:
    """It runs between the log and the memory. By the times of the files, 40 MiB took 40 s."""
    place = saved(mounted, "20260102T000000Z", seconds=40)
    stages = "[9.10 s] running the script\n[29.50 s] saving the memory\n"
    (place / dump.STAGES).write_text(f"{stages}[49.50 s] the memory is written; waited 3 s\n")
    found = expected(mounted)
    assert found
    assert found.rate == 2 * MIB
    stages += "[30.00 s] could not save the memory at level 31: x; trying level 1\n"
    (place / dump.STAGES).write_text(f"{stages}[49.50 s] the memory is written; waited 3 s\n")
    found = expected(mounted)
    assert found
    assert found.rate == MIB


@pytest.mark.parametrize("lost", ["dmesg.txt.gpg.000", "vmcore.flat.gpg.000", dump.SUMS])
def test_a_dump_that_does_not_tell(mounted: FakeHost, lost: str) -> None:
    (saved(mounted, "20260101T000000Z") / lost).unlink()
    found = expected(mounted, LOG)
    assert found
    assert found.source.startswith("as the crash kernel logged ")


@pytest.mark.parametrize("seconds", [-5, 0, 4])
def test_times_of_fat_are_coarse(mounted: FakeHost, seconds: float) -> None:
    saved(mounted, "20260101T000000Z", seconds=seconds)
    found = expected(mounted)
    assert found is None or found.is_read


def test_a_link_in_place_of_the_dumps(mounted: FakeHost) -> None:
    place = saved(mounted, "20260101T000000Z").parent
    place.rename(mounted.path("/elsewhere"))
    mounted.link(str(Path("/") / place.relative_to(mounted.root)), "/elsewhere")
    found = expected(mounted)
    assert found is None or found.is_read


def test_as_the_last_crash_kernel_logged(fake: FakeHost) -> None:
    plugged.plug(fake, "vfat")
    found = expected(fake, LOG)
    assert found
    assert (found.rate, found.is_read) == (5 * MIB, False)


def test_as_the_stick_is_read(tmp_path: Path) -> None:
    """A file in place of the device, on a disk that can be read past the cache."""
    device = tmp_path / "disk"
    device.write_bytes(bytes(8 * MIB))
    before = device.stat().st_mtime_ns
    assert speed._reading(device) > 0
    assert device.stat().st_mtime_ns == before
    assert speed._reading(tmp_path / "none") == 0


def test_nothing_is_made_up(fake: FakeHost) -> None:
    assert expected(fake) is None
    assert expected(fake, CrashLog("", is_whole=True)) is None
