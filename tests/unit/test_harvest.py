# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine's dumps on sticks that really are mounted, and restored to a directory tree."""

import fcntl
import hashlib
import os
import re
import subprocess
from collections import namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests import plugged
from tests.dumped import CORE, LOG, Dump, flat, names
from tests.fakehost import FakeHost
from tests.keyring import Keyring
from tinykdump import cli, dump, files, hardware, harvest
from tinykdump.host import Host
from tinykdump.restore import alone

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")

FIRST, SECOND = "20261101T000000Z", "20261102T030405Z"
TARGET = "here-2026-11-01-00:00:00"

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def machine(fake: FakeHost, keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A machine whose dumps are encrypted to a key in the user's keyring, and whose disk has space,
    whatever the host's has."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(100 << 20, 50 << 20, 50 << 20))
    fake.write("/proc/sys/kernel/hostname", "here\n")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    monkeypatch.setenv("GNUPGHOME", str(keys.home))
    return fake


@pytest.fixture
def save(machine: FakeHost, keys: Keyring, tmp_path: Path) -> Callable[..., Path]:
    """Plugs in a stick with these dumps, and returns its image."""

    def plug(*saved: str, name: str = "sdb1", usb: bool = True, damage: str = "") -> Path:
        here = hardware.machine_name(machine.host)
        top = tmp_path / name
        for number, each in enumerate(saved):
            made = Dump(tmp_path / f"{name}-{number}", keys)
            made.add("dmesg.txt.gpg", LOG)
            made.add("vmcore.flat.gpg", flat(CORE))
            if damage:
                part = made.path / damage
                part.write_bytes(part.read_bytes()[:-9000])
            place = top / dump.TOP / (each if "/" in each else f"{here}/{each}")
            place.parent.mkdir(parents=True, exist_ok=True)
            made.path.rename(place)
        image = plugged.plug(machine, "ext4", name, usb=usb)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", "-L", "TINYKDUMP", "-d", top, image],
                       check=True, capture_output=True)  # fmt: skip
        return image

    return plug


def crash(machine: FakeHost, name: str = "") -> Path:
    return machine.path(f"/var/crash/{name}")


def digest(image: Path) -> str:
    return hashlib.sha256(image.read_bytes()).hexdigest()


def test_new_dumps_are_restored_once(
    machine: FakeHost, save: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """The stick stays as it was, to the byte, and nothing of it stays mounted."""
    image = save(FIRST, SECOND, f"{FIRST}-2.partial", f"fb0646cb5b56/{SECOND}")
    before = digest(image)
    assert cli.main(["harvest"]) == 0
    newest = "here-2026-11-02-03:04:05"
    assert capfd.readouterr().out.splitlines() == [
        f"restored {crash(machine, newest)}", f"restored {crash(machine, TARGET)}",
    ]  # fmt: skip
    assert names(crash(machine)) == [TARGET, newest]
    assert names(crash(machine, TARGET)) == ["vmcore", "vmcore-dmesg.txt"]
    assert crash(machine, TARGET).stat().st_mode & 0o777 == 0o700
    assert digest(image) == before
    assert str(machine.root) not in Path("/proc/self/mountinfo").read_text()
    noted = machine.path("/var/lib/tinykdump/harvested").read_text()
    assert re.fullmatch(rf"{SECOND}:[0-9a-f]{{16}}\n{FIRST}:[0-9a-f]{{16}}\n", noted)
    # ABRT may have moved one of them away.
    subprocess.run(["rm", "-r", crash(machine, TARGET)], check=True)
    assert cli.main(["harvest"]) == 0
    assert capfd.readouterr() == ("", "")
    assert names(crash(machine)) == [newest]


def test_a_name_that_comes_again(
    machine: FakeHost, save: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a clock, each crash can have the same time."""
    name = "19700101T000006Z"
    save(name, name="sda1")
    assert cli.main(["harvest"]) == 0
    save(name, name="sdb1")
    assert cli.main(["harvest"]) == 0
    assert cli.main(["harvest"]) == 0
    first = crash(machine, "here-1970-01-01-00:00:06")
    assert capfd.readouterr().out == f"restored {first}\nrestored {first}-2\n"


def test_what_an_earlier_version_noted(machine: FakeHost, save: Callable[..., Path]) -> None:
    """Names alone."""
    save(FIRST, SECOND)
    machine.write("/var/lib/tinykdump/harvested", f"{FIRST}\n")
    assert cli.main(["harvest"]) == 0
    assert names(crash(machine)) == ["here-2026-11-02-03:04:05"]


def test_no_stick(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["harvest"]) == 0
    assert capfd.readouterr() == ("", "")
    assert not crash(machine).exists()


def test_an_internal_disk_is_not_mounted(machine: FakeHost, save: Callable[..., Path]) -> None:
    save(FIRST, usb=False)
    assert cli.main(["harvest"]) == 0
    assert not crash(machine).exists()


def test_a_stick_that_cannot_be_mounted_does_not_stop_the_others(
    machine: FakeHost, save: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """blkid still finds its label, but the kernel reads no group descriptors."""
    damaged = save(SECOND, name="sda1")
    with damaged.open("r+b") as image:
        image.seek(2048)
        image.write(b"\xff" * 1024)
    save(FIRST, name="sdb1")
    assert cli.main(["harvest"]) == 1
    said = capfd.readouterr()
    assert said.out == f"restored {crash(machine, TARGET)}\n"
    (line,) = said.err.splitlines()
    assert line.startswith("tinykdump: /dev/sda1: mount failed: ")
    assert line.endswith(" (check the stick; its file system may be damaged)")


def test_a_stick_that_is_mounted_already(machine: FakeHost, save: Callable[..., Path]) -> None:
    """By the desktop, for example."""
    image = save(FIRST)
    place = machine.path("/media/me")
    place.mkdir(parents=True)
    machine.write("/proc/self/mountinfo", "30 1 8:1 / /media/me rw - ext4 /dev/sdb1 rw\n")
    subprocess.run(["mount", "-o", "ro", image, place], check=True)
    try:
        assert cli.main(["harvest"]) == 0
        assert (place / dump.TOP).is_dir()
    finally:
        subprocess.run(["umount", place], check=True)
    assert names(crash(machine)) == [TARGET]


def test_a_damaged_dump_is_said_once(
    machine: FakeHost, save: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    save(FIRST, damage="vmcore.flat.gpg.000")
    assert cli.main(["harvest"]) == 1
    assert "tinykdump: vmcore is not complete: " in capfd.readouterr().err
    assert names(crash(machine, TARGET)) == ["vmcore-dmesg.txt", "vmcore-incomplete"]
    assert cli.main(["harvest"]) == 0


def test_without_the_key_it_is_tried_again(
    machine: FakeHost, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    keys: Keyring, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    save(FIRST)
    machine.path("/empty").mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(machine.path("/empty")))
    assert cli.main(["harvest"]) == 1
    assert "no secret key (import the secret key" in capfd.readouterr().err
    assert names(crash(machine)) == []
    monkeypatch.setenv("GNUPGHOME", str(keys.home))
    assert cli.main(["harvest"]) == 0
    assert names(crash(machine)) == [TARGET]


def test_a_part_of_the_disk_stays_free(
    machine: FakeHost, save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """And the dump is tried again, once there is space."""
    save(FIRST)
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda _: Usage(100 << 20, 85 << 20, 15 << 20))
        assert cli.main(["harvest"]) == 1
    assert capfd.readouterr().err == (
        f"tinykdump: {crash(machine)} has no space for a dump: 1 MiB are needed, and 0 MiB are "
        "free beyond the 15% that stay free (delete old dumps there, or use tinykdump restore "
        "--output)\n"
    ).replace(f"{crash(machine)}/", str(crash(machine)))
    assert names(crash(machine)) == []
    assert cli.main(["harvest"]) == 0
    assert names(crash(machine)) == [TARGET]


@pytest.mark.parametrize(
    ("there", "again"),
    [({"vmcore-dmesg.txt", "vmcore.partial"}, True), (set(), True), ({"vmcore"}, False),
     ({"vmcore-incomplete"}, False), ({"vmcore.partial", "notes"}, False)],
)  # fmt: skip
def test_a_directory_that_exists(
    machine: FakeHost, save: Callable[..., Path], there: set[str], again: bool
) -> None:
    """What an interrupted run left is restored again; what somebody else made stays."""
    save(FIRST)
    crash(machine, TARGET).mkdir(parents=True)
    for name in there:
        (crash(machine, TARGET) / name).write_text("before")
    assert cli.main(["harvest"]) == 0
    if again:
        assert names(crash(machine, TARGET)) == ["vmcore", "vmcore-dmesg.txt"]
        assert (crash(machine, TARGET) / "vmcore-dmesg.txt").read_bytes() == LOG
    else:
        assert set(names(crash(machine, TARGET))) == there


def test_a_directory_of_somebody_else(
    machine: FakeHost, save: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """On some systems all users can write to /var/crash: that must not look like a restored one."""
    save(FIRST)
    crash(machine).mkdir(parents=True)
    target, elsewhere = crash(machine, TARGET), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "notes").write_text("mine")
    says = f"tinykdump: {target} exists, and is no directory of root's (delete it)\n"

    target.symlink_to(elsewhere)
    assert cli.main(["harvest"]) == 1
    assert capfd.readouterr() == ("", says)
    target.unlink()
    target.mkdir()
    os.chown(target, 65534, 65534)
    assert cli.main(["harvest"]) == 1
    assert capfd.readouterr() == ("", says)
    target.rmdir()
    assert cli.main(["harvest"]) == 0
    assert names(target) == ["vmcore", "vmcore-dmesg.txt"]
    assert names(elsewhere) == ["notes"]


def test_a_dump_that_somebody_restores_now(
    machine: FakeHost, save: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    save(FIRST)
    target = crash(machine, TARGET)
    target.mkdir(parents=True)
    (target / "vmcore.partial").write_text("half")
    with alone(target):
        assert cli.main(["harvest"]) == 1
    assert capfd.readouterr().err == (
        f"tinykdump: a dump is being restored to {target} (wait for it)\n"
    )
    assert names(target) == ["vmcore.partial"]
    assert cli.main(["harvest"]) == 0
    assert names(target) == ["vmcore", "vmcore-dmesg.txt"]


def test_two_at_a_time(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    machine.path("/run/tinykdump").mkdir(parents=True)
    with machine.path("/run/tinykdump/harvest.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert cli.main(["harvest"]) == 1
    assert "tinykdump: dumps are being harvested already (wait" in capfd.readouterr().err


def test_the_note_is_written_under_the_lock(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process would delete it while it is written: files.publish() deletes leftovers."""
    publish = files.publish
    locked: list[Path] = []

    def look(content: Mapping[Path, bytes]) -> None:
        with machine.path("/run/tinykdump/lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked.extend(content)
        publish(content)

    monkeypatch.setattr(files, "publish", look)
    harvest._note(machine.host, FIRST)
    assert locked == [machine.path("/var/lib/tinykdump/harvested")]


def test_notes_are_bounded(machine: FakeHost) -> None:
    for number in range(3):
        harvest._note(machine.host, f"20261101T00000{number}Z")
    machine.write("/var/lib/tinykdump/harvested", "x\n" * 5000)
    harvest._note(Host(machine.root), FIRST)
    lines = machine.path("/var/lib/tinykdump/harvested").read_text().splitlines()
    assert (len(lines), lines[-1]) == (1000, FIRST)
