# SPDX-License-Identifier: GPL-2.0-or-later
"""The notice after a crash: from a record in pstore or a dump on a stick, until status has run."""

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import plugged
from tests.fakehost import FakeHost, make_live
from tinykdump import backup, cli, hardware, notice, pstore, scriptlets

CATALOG = Path(__file__).parents[2] / "src/systemd/tinykdump.catalog"
MOTD = str(notice.MOTD)
NOTE = str(notice.NOTE)
# No two crash kernels have a stage at the same microsecond.
STAGE = "<12>[    9.{:06}] tinykdump: [9.00 s] {}"


@pytest.fixture
def journal(machine: FakeHost) -> Iterator[socket.socket]:
    """Where the journal would listen."""
    place = machine.path("/run/systemd/journal/socket")
    place.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(place))
        listening.setblocking(False)
        yield listening


@pytest.fixture
def machine(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """One that booted at 3000 and before at 500, seconds since 1970."""
    fake.write("/proc/stat", "btime 3000\n")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    monkeypatch.setattr(pstore, "_previous_boot", lambda _host: 500.0)
    return fake


def crashed(machine: FakeHost, at: int = 1000, said: str = "failed: no stick") -> None:
    """The record of a crash kernel."""
    file = f"/var/lib/systemd/pstore/{at}/kexec-console-erst-{at}"
    machine.write(file, f"kexec-console#{at:x} Part1\n{STAGE.format(at, said)}\n")
    os.utime(machine.path(file), (at, at))


def entries(journal: socket.socket) -> list[dict[str, str]]:
    """What came to the journal since the last call."""
    found: list[dict[str, str]] = []
    while True:
        try:
            lines = journal.recv(1 << 16).decode().splitlines()
        except BlockingIOError:
            return found
        found.append(dict(line.split("=", 1) for line in lines))


def motd(machine: FakeHost) -> str:
    path = machine.path(MOTD)
    return path.read_text() if path.exists() else ""


def test_without_a_crash_nothing_is_told(machine: FakeHost, journal: socket.socket) -> None:
    assert cli.main(["notice"]) == 0
    assert (motd(machine), entries(journal)) == ("", [])
    assert not machine.path(NOTE).exists()


@pytest.fixture
def umask() -> Iterator[None]:
    """As in tinykdump-notice.service."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_crash_is_told_until_status_was_run(
    machine: FakeHost, journal: socket.socket, capfd: pytest.CaptureFixture[str]
) -> None:
    """Other users can read the line; the entry is there once; monitoring has not seen it."""
    crashed(machine)
    line = "this machine crashed 1970-01-01 00:16:40 UTC; no complete dump was saved"
    for boot in range(2):
        assert cli.main(["notice"]) == 0
        assert capfd.readouterr().out == f"{line}\n"
        assert motd(machine) == f"tinykdump: {line} (run tinykdump status)\n"
        assert [each["MESSAGE"] for each in entries(journal)] == [line][boot:]
        machine.remove("/run/motd.d")
    cli.main(["notice"])
    assert machine.path(MOTD).stat().st_mode & 0o777 == 0o644
    assert machine.path("/run/motd.d").stat().st_mode & 0o777 == 0o755
    for option in ("--json", "--check"):
        cli.main(["status", option])
        assert motd(machine)
    capfd.readouterr()
    cli.main(["status"])
    assert "\nlast crash:   1970-01-01 00:16:40 UTC: failed: no stick\n" in capfd.readouterr().out
    assert motd(machine) == ""
    for words in (["notice"], ["status"]):
        cli.main(words)
        assert (motd(machine), entries(journal)) == ("", [])
    capfd.readouterr()
    cli.main(["status", "--json"])
    assert json.loads(capfd.readouterr().out)["crash"]["seen"] is True


def test_the_entry(machine: FakeHost, journal: socket.socket) -> None:
    """It has the fields that the catalog shows, and its ID."""
    crashed(machine, said="saved as 20261126T110000Z")
    cli.main(["notice"])
    (entry,) = entries(journal)
    assert entry["MESSAGE"].endswith("; the dump was saved")
    assert entry["TINYKDUMP_RESULT"] == "saved as 20261126T110000Z"
    text = CATALOG.read_text()
    assert f"\n-- {entry['MESSAGE_ID']}\n" in text
    assert set(re.findall("@([A-Z_]+)@", text)) == {each for each in entry if "KDUMP_" in each}


def test_the_catalog_is_valid(tmp_path: Path) -> None:
    """journalctl itself takes it."""
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    (place / CATALOG.name).write_bytes(CATALOG.read_bytes())
    for words in (["--update-catalog"], ["--list-catalog"]):
        done = subprocess.run(["journalctl", f"--root={tmp_path}", *words], capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{notice.MESSAGE_ID} tinykdump: The kernel crashed\n"


def test_each_new_crash_is_told_and_no_older_one(machine: FakeHost, journal: socket.socket) -> None:
    """Also if the record of the newest one is gone, as systemd deletes them."""
    crashed(machine)
    cli.main(["status"])
    crashed(machine, 2000)
    cli.main(["notice"])
    assert " 00:33:20 UTC;" in motd(machine)
    assert len(entries(journal)) == 1
    cli.main(["status"])
    machine.remove("/var/lib/systemd/pstore/2000")
    cli.main(["notice"])
    assert (motd(machine), entries(journal)) == ("", [])


def test_a_crash_of_a_wrong_clock_hides_no_other(machine: FakeHost, journal: socket.socket) -> None:
    """Nor does a forged dump on a stick."""
    machine.write(NOTE, '{"id": "x", "time": "2100-01-01T00:00:00+00:00", "seen": true}')
    crashed(machine)
    cli.main(["notice"])
    assert motd(machine)
    assert len(entries(journal)) == 1


@pytest.mark.parametrize(
    ("suffix", "says"), [("", "; the dump was saved "), (".partial", "; no complete dump was ")]
)
def test_a_dump_on_a_mounted_stick_tells_it_too(
    machine: FakeHost, journal: socket.socket, suffix: str, says: str
) -> None:
    plugged.plug(machine, "vfat")
    machine.write("/proc/self/mountinfo", "30 27 8:17 / /mnt rw shared:2 - vfat /dev/sdb1 rw\n")
    name = hardware.machine_name(machine.host)
    machine.path(f"/mnt/tinykdump/{name}/20260102T000000Z{suffix}").mkdir(parents=True)
    cli.main(["notice"])
    assert says in motd(machine)
    assert len(entries(journal)) == 1


def test_without_a_journal_it_is_told_again(
    machine: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    """The login shows it nevertheless, and the next boot tries again."""
    crashed(machine)
    assert cli.main(["notice"]) == 1
    assert capfd.readouterr().err.startswith("tinykdump: /run/systemd/journal/socket: No such file")
    assert motd(machine)
    assert not machine.path(NOTE).exists()


@pytest.mark.parametrize("note", ["", "{", "[]", "null", '{"id": 1}', '{"time": "x"}',
                                  '{"id": "a", "time": 3, "seen": true}'])  # fmt: skip
def test_a_damaged_note_is_none(machine: FakeHost, journal: socket.socket, note: str) -> None:
    crashed(machine)
    machine.write(NOTE, note)
    assert cli.main(["notice"]) == 0
    assert len(entries(journal)) == 1


def test_a_status_that_cannot_note_it_still_shows_it(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/var/lib/x")

    crashed(machine)
    monkeypatch.setattr("tinykdump.files.publish", full)
    assert cli.main(["status"]) == 1
    shown = capfd.readouterr()
    assert "last crash:" in shown.out
    assert shown.err.startswith("tinykdump: /var/lib/x: No space left on device (")


def test_erasing_the_package_ends_it(
    machine: FakeHost, journal: socket.socket, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The note that the key was backed up stays with the key."""
    machine.write(str(backup.NOTE), "{}")
    crashed(machine)
    cli.main(["notice"])
    assert len(entries(journal)) == 1
    capfd.readouterr()
    make_live(monkeypatch)
    assert scriptlets.main(["erase"]) == 0
    assert capfd.readouterr().err == ""
    assert motd(machine) == ""
    assert [path.name for path in machine.host.children("/var/lib/tinykdump")] == ["backup.json"]
