# SPDX-License-Identifier: GPL-2.0-or-later
"""What status shows: one screen for people, JSON and one line for programs."""

import json
import os
import pty
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.fakehost import KVER, SOURCE, FakeHost
from tests.keyring import Keyring
from tinykdump import cli, clock, crash, survey
from tinykdump import keys as openpgp_keys
from tinykdump.config import resolve
from tinykdump.crashlog import Boots, CrashLog
from tinykdump.dumps import Saved
from tinykdump.status import Crash, Status, Trial

NOON = datetime(2026, 11, 26, 12, tzinfo=timezone(timedelta(hours=1), "CET"))
DUMP = Path("/mnt/tinykdump/0123456789ab/20261126T110000Z")
ARMED = Status(
    running="6.1", image_built=NOON, armed=True, loaded="6.1", loaded_at=NOON, reserved=48 << 20,
    needed=44 << 20, encrypted=True, key="F" * 40, key_expires=NOON, key_backup=NOON,
    target="LABEL=TINYKDUMP", stick="/dev/sdb1", stick_filesystem="vfat", stick_free=5 << 30,
    expected_dump=97 << 20, dumps=2, incomplete_dumps=1, last_dump=str(DUMP), last_dump_at=NOON,
    crash_log="erst", crash=Crash("1", NOON, True, True, "saved as x", True), test=None,
    rehearsal=None, problems=(),
)  # fmt: skip
SEEN = Crash("1", NOON, True, True, "saved as x", True, seen=True)
TESTED = Trial("0123456789abcdef", NOON, True, 44, "saved as x")
BROKEN = replace(
    ARMED, armed=False, loaded="foreign", loaded_at=None, problems=("a (b) (do x)", "c (do y)")
)


def test_everything_fits_on_a_screen() -> None:
    """Of 80 columns, with a time beside everything that happened."""
    lines = ARMED.to_text().splitlines()
    assert sum(-(-len(line) // 80) for line in lines) < 24
    for name in ("image", "loaded", "key", "key backup", "last dump", "last crash"):
        (line,) = (line for line in lines if line.startswith(f"{name}:"))
        assert "2026-11-26 12:00:00 CET" in line


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "restore the dump: tinykdump list --mount shows where it is"),
        ({"crash": None}, "nothing"),
        ({"crash": Crash("1", NOON, True, True, "x", True, seen=True)}, "nothing"),
        ({"crash": None, "stick": ""}, "plug in a stick with LABEL=TINYKDUMP (tinykdump prepare "
         "makes one)"),
        ({"crash": Crash("1", NOON, True, False, "failed: x", True)},
         "read the crash kernel's log with tinykdump log"),
        ({"problems": ("a (b) (do x)", "c (do y)")}, "do x"),
    ],
)  # fmt: skip
def test_the_next_step(changes: dict[str, Any], says: str) -> None:
    found = replace(ARMED, **changes)
    assert found.to_text().splitlines()[-1] == f"next:         {says}"
    assert json.loads(found.to_json())["next"] == says


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "came out 44 s after the crash: saved as x"),
        ({"seconds": None}, "came out: saved as x"),
        ({"came_out": False, "result": "failed: y"}, "failed: y"),
        ({"came_out": None, "result": ""}, "not known yet"),
    ],
)
def test_the_last_test(changes: dict[str, Any], says: str) -> None:
    found = replace(ARMED, test=replace(TESTED, **changes))
    assert f"\nlast test:    2026-11-26 12:00:00 CET: {says}\n" in found.to_text()
    assert ("\033[33m2026" in found.to_text(colour=True)) == ("came_out" in changes)


def test_colours_are_around_what_matters() -> None:
    assert "\033[32marmed with 6.1\033[0m\n" in ARMED.to_text(colour=True)
    assert "\033[31mnot armed: another program's is loaded\033[0m" in BROKEN.to_text(colour=True)
    assert "\033[31ma (b) (do x)\033[0m" in BROKEN.to_text(colour=True)
    assert "\033" not in BROKEN.to_text()


def test_a_terminal_obeys_nothing_that_a_stick_says() -> None:
    hostile = replace(
        ARMED, last_dump="x\033[2J", crash=Crash("1", NOON, True, True, "y\033", True)
    )
    assert "\033" not in hostile.to_text()


@pytest.mark.parametrize(
    ("status", "code", "line"),
    [
        (replace(ARMED, crash=None), 0, "TINYKDUMP OK - armed with 6.1"),
        (replace(ARMED, crash=SEEN), 0, "TINYKDUMP OK - armed with 6.1"),
        (
            ARMED,
            1,
            "TINYKDUMP WARNING - crashed 2026-11-26 12:00:00 CET: saved as x (run tinykdump "
            "status)",
        ),
        (replace(ARMED, crash=SEEN, problems=("a (b)",)), 1, "TINYKDUMP WARNING - a (b)"),
        (BROKEN, 2, "TINYKDUMP CRITICAL - not armed: a (b) (do x) (and 2 more)"),
    ],
)
def test_monitoring(status: Status, code: int, line: str) -> None:
    assert status.check() == (code, line)


def test_json_has_times_with_their_zone() -> None:
    found = json.loads(ARMED.to_json())
    assert found["version"] == 1
    assert found["loaded_at"] == found["crash"]["time"] == "2026-11-26T12:00:00+01:00"
    assert json.loads(replace(ARMED, loaded_at=None).to_json())["loaded_at"] is None


@pytest.mark.parametrize(
    ("log", "on_stick", "time", "saved", "previous"),
    [  # A log without a stage says that the dump failed.
        (None, (), None, None, None),
        (None, (DUMP,), DUMP.name, True, True),
        (None, (DUMP.with_suffix(".partial"),), DUMP.name, False, True),
        (CrashLog("", True, 2e9, 2e9), (DUMP,), "20330518T033320Z", False, True),
        (CrashLog("", True, 0, 1e9), (DUMP,), DUMP.name, True, True),
        (CrashLog("", True, 0, 1e9), (), "20010909T014640Z", False, False),
        (None, (DUMP.with_name("20269926T110000Z"),), None, None, None),
    ],
)  # fmt: skip
def test_the_last_crash_is_the_newest_one_that_is_known(
    log: CrashLog | None, on_stick: tuple[Path, ...], time: str | None, *, saved: bool | None,
    previous: bool | None,
) -> None:  # fmt: skip
    saved_dumps = [Saved(path, path.parent.name, path.name) for path in on_stick]
    found = crash.last(Boots(3e9, 1.5e9), log, saved_dumps)
    assert (found is None) == (time is None)
    if found:
        shown = f"{found.time.astimezone(UTC):%Y%m%dT%H%M%SZ}"
        assert (shown, found.saved, found.previous_boot) == (time, saved, previous)


@pytest.mark.usefixtures("zone")
def test_times_are_in_the_local_zone(fake: FakeHost) -> None:
    fake.write("/run/tinykdump/loaded.json", "")
    os.utime(fake.path("/run/tinykdump/loaded.json"), (0, 0))
    found = survey._written(fake.host, Path("/run/tinykdump/loaded.json"))
    assert found is not None
    text = replace(ARMED, loaded_at=found).to_text()
    assert "loaded:       1970-01-01 05:30:00 TST\n" in text
    shown = json.loads(replace(ARMED, loaded_at=found).to_json())
    assert shown["loaded_at"] == "1970-01-01T05:30:00+05:30"


@pytest.mark.parametrize(("days", "warned"), [(20, True), (60, False)])
def test_a_key_that_expires(
    fake: FakeHost, short_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, *, days: int, warned: bool,
) -> None:  # fmt: skip
    """The date is there, and a problem from thirty days before."""
    (short_path / "g").mkdir(mode=0o700)
    ring = Keyring(short_path / "g")
    ring.make("brief@example.org", "future-default", "default", f"{days}d")
    fake.write("/root/key.asc", ring.public("brief@example.org"))
    ring.close()
    fake.write("/etc/default/tinykdump", "[dump]\nkey = /root/key.asc\n")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    cli.main(["status", "--json"])
    found = json.loads(capfd.readouterr().out)
    left = datetime.fromisoformat(found["key_expires"]).timestamp() - time.time()
    assert abs(left - days * 86400) < 86400
    assert any(" expires " in problem for problem in found["problems"]) == warned
    cli.main(["key", "show"])
    date = clock.shown(datetime.fromisoformat(found["key_expires"]).astimezone())
    assert f"expires:      {date}\n" in capfd.readouterr().out


@pytest.mark.usefixtures("zone")
def test_a_key_that_has_expired(
    fake: FakeHost, keys: Keyring, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fake.write("/root/key.asc", keys.public("expired@example.org"))
    fake.write("/etc/default/tinykdump", "[dump]\nkey = /root/key.asc\n")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    cli.main(["status", "--json"])
    problems = json.loads(capfd.readouterr().out)["problems"]
    assert [line for line in problems if "expired" in line] == [
        "key /root/key.asc expired 2020-01-02 05:30:00 TST (extend it with gpg --quick-set-expire "
        "and export it again, or name another key)"
    ]


def test_only_subkeys_that_can_encrypt_count_for_the_expiry() -> None:
    def expiry(primary: str, **subkeys: tuple[str, str, str]) -> int:
        names = ("cap", "expires", "trust")
        info = {each: dict(zip(names, values, strict=True)) for each, values in subkeys.items()}
        return openpgp_keys._expiry({"cap": "scESC", "expires": primary, "subkey_info": info})

    assert expiry("", a=("e", "", "u")) == 0
    assert expiry("50", a=("e", "", "u")) == 50
    assert expiry("50", a=("e", "40", "u"), b=("s", "10", "u")) == 40
    assert expiry("", a=("e", "40", "u"), b=("e", "45", "u"), c=("e", "", "r")) == 45
    assert expiry("", a=("e", "40", "u"), b=("e", "", "u")) == 0


def test_check_and_its_exit_statuses(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A status that cannot be read is UNKNOWN, on standard output."""
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    assert cli.main(["status", "--check"]) == 2
    (line,) = capfd.readouterr().out.splitlines()
    assert line.startswith("TINYKDUMP CRITICAL - not armed: this machine has no key yet (")
    fake.write("/etc/default/tinykdump", "[dump]\nwiat = 3\n")
    assert cli.main(["status", "--check"]) == cli.UNKNOWN == 3
    assert capfd.readouterr().out.startswith("TINYKDUMP UNKNOWN - /etc/default/tinykdump")
    monkeypatch.setenv("TINYKDUMP_ROOT", "/")
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert cli.main(["status", "--check"]) == 3
    assert capfd.readouterr().out == ("TINYKDUMP UNKNOWN - tinykdump must run as root (use sudo)\n")


@pytest.mark.parametrize(
    ("changes", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({}, False),
     ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "xterm", "NO_COLOR": ""}, True)],
)  # fmt: skip
def test_only_a_terminal_gets_colours(
    fake: FakeHost, changes: dict[str, str], *, coloured: bool
) -> None:
    """A real one, and a pipe."""
    clean = {name: text for name, text in os.environ.items() if name not in ("TERM", "NO_COLOR")}
    environment = {**clean, "PYTHONPATH": SOURCE, "TINYKDUMP_ROOT": str(fake.root), **changes}
    command = [sys.executable, "-m", "tinykdump", "status"]
    ours, theirs = pty.openpty()
    subprocess.run(command, stdout=theirs, env=environment, check=False, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert f"kernel:       {KVER}" in shown
    assert ("\033[31mnot armed\033[0m" in shown) == coloured
    assert ("\033" in shown) == coloured
    piped = subprocess.run(command, capture_output=True, env=environment, check=False, timeout=60)
    assert b"\033" not in piped.stdout


def test_the_configuration_need_not_encrypt(fake: FakeHost) -> None:
    found = survey.collect(fake.host, resolve([], {"encrypt": "no"}))
    assert "key:          none: dumps are plain text\n" in found.to_text()


OLD = "makedumpfile: version 1.7.6 (released on 1 Jan 2026)"


def test_an_old_makedumpfile_is_a_note_and_no_problem(fake: FakeHost) -> None:
    """Monitoring stays quiet: most distributions have no newer one."""
    fake.write("/usr/bin/makedumpfile", OLD, 0o755)
    found = survey.collect(fake.host, resolve([], {}))
    (note,) = found.notes
    assert "before 1.7.7 also saves free memory" in note
    assert f"note:         {note}\n" in found.to_text()
    assert note not in (*found.problems, found.next, found.check()[1])
    fake.write("/usr/bin/makedumpfile", OLD.replace("1.7.6", "1.7.7"), 0o755)
    assert survey.collect(fake.host, resolve([], {})).notes == ()
    fake.write(f"/lib/modules/{KVER}/config", "CONFIG_ARM64_4K_PAGES=y\nCONFIG_ARM64_VA_BITS=52\n")
    (note,) = survey.collect(fake.host, resolve([], {})).notes
    assert "cannot read this kernel: a dump has all memory" in note
