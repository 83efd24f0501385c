# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump list on a stick that is mounted: a tree with real dumps in it."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests import plugged
from tests.dumped import CORE, Dump, flat
from tests.fakehost import FakeHost
from tests.keyring import Keyring
from tinykdump import cli, dmesg, dump, hardware, openpgp

LOG = b"""\
[    0.000000] Linux version 6.12.1-amd64 (debian-kernel@lists.debian.org)
[   12.345678] [     T99] sysrq: Trigger a crash
[   12.345679] [     T99] Kernel panic - not syncing: sysrq triggered \x1b[2Jcrash
[   12.345680] [     T99] CPU: 0 UID: 0 PID: 99 Comm: sh Not tainted 6.12.1-amd64 #1  Debian
"""
OTHER = "0123456789ab"


@pytest.fixture
def home(short_path: Path, keys: Keyring) -> Path:
    """A home directory with the secret key "good" only."""
    made = Keyring(short_path / ".gnupg")
    made.home.mkdir(mode=0o700)
    made.gpg("--import", stdin=keys.public("other@example.org"))
    made.gpg("--import", stdin=keys.gpg("--export-secret-keys", "good@example.org"))
    made.close()
    return short_path


@pytest.fixture
def machine(fake: FakeHost, home: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """With a stick on /mnt."""
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    monkeypatch.setenv("HOME", str(home))
    plugged.plug(fake, "vfat")
    fake.write("/proc/self/mountinfo", "30 27 8:17 / /mnt rw shared:2 - vfat /dev/sdb1 rw\n")
    fake.path("/mnt").mkdir()
    return fake


def add(machine: FakeHost, keys: Keyring, name: str, of: str = "") -> Dump:
    """A dump of that name, of this machine or another one."""
    place = machine.path(f"/mnt/tinykdump/{of or hardware.machine_name(machine.host)}/{name}")
    place.parent.mkdir(parents=True, exist_ok=True)
    return Dump(place, keys)


def listed(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    assert cli.main(["list", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["version"] == 1
    return list(found["dumps"])


@pytest.mark.usefixtures("zone")
def test_the_list(machine: FakeHost, keys: Keyring, capfd: pytest.CaptureFixture[str]) -> None:
    first = add(machine, keys, "20260101T000000Z")
    first.add("dmesg.txt.gpg", LOG)
    first.add("vmcore.flat.gpg", flat(CORE))
    second = add(machine, keys, "20260102T030405Z.partial", OTHER)
    second.add("dmesg.txt.gpg", LOG, key="other")
    newer, older = listed(capfd)
    assert older == {
        "time": "2026-01-01T05:30:00+05:30", "machine": hardware.machine_name(machine.host),
        "here": True, "kernel": "6.12.1-amd64", "panic": "sysrq triggered ?[2Jcrash",
        "size": sum(path.stat().st_size for path in first.path.glob("*.gpg.*")),
        "complete": True, "test": False, "encrypted": True, "key": True, "device": "/dev/sdb1",
        "directory": str(Path("/mnt") / first.path.relative_to(machine.path("/mnt"))),
    }  # fmt: skip
    assert newer == older | {
        "time": "2026-01-02T08:34:05+05:30", "machine": OTHER, "here": False, "kernel": "",
        "panic": "", "complete": False, "key": False, "size": newer["size"],
        "directory": f"/mnt/tinykdump/{OTHER}/20260102T030405Z.partial",
    }  # fmt: skip

    assert cli.main(["list"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["TIME", "2026-01-02", "2026-01-01"]
    assert lines[1].startswith("2026-01-02 08:34:05 TST  ")
    assert "(this)  6.12.1-amd64  0 MiB  complete  here     sysrq triggered" in lines[2]
    assert "partial   missing  -" in lines[1]


def test_a_dump_that_is_not_encrypted(
    machine: FakeHost, keys: Keyring, capfd: pytest.CaptureFixture[str]
) -> None:
    made = add(machine, keys, "20260101T000000Z")
    first, rest = LOG.split(b"\n", 1)
    made.add("dmesg.txt", first + b"\n[    1.0] usb 1-1: said" * 9000 + b"\n" + rest)
    made.add("vmcore", b"core")
    (found,) = listed(capfd)
    assert (found["encrypted"], found["key"], found["complete"]) == (False, False, True)
    assert found["kernel"] == "6.12.1-amd64"
    cli.main(["list"])
    assert "complete  plain  sysrq" in capfd.readouterr().out


@pytest.mark.parametrize("lost", ["vmcore.flat.gpg.000", "SHA256SUMS"])
def test_what_has_the_name_of_a_complete_dump_need_not_be_one(
    machine: FakeHost, keys: Keyring, capfd: pytest.CaptureFixture[str], lost: str
) -> None:
    made = add(machine, keys, "20260101T000000Z")
    made.add("dmesg.txt.gpg", LOG)
    made.add("vmcore.flat.gpg", flat(CORE))
    (made.path / lost).unlink()
    (found,) = listed(capfd)
    assert not found["complete"]
    assert found["panic"]


@pytest.mark.slow
def test_nothing_is_asked_for(
    machine: FakeHost, keys: Keyring, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A secret key with a passphrase is here, but the log stays closed; no agent stays behind."""
    mine = Keyring(home / ".gnupg")
    mine.gpg("--passphrase", "secret", "--quick-gen-key", "locked@example.org", "future-default",
             "default", "never")  # fmt: skip
    made = add(machine, keys, "20260101T000000Z")
    locked = mine.gpg("--trust-model", "always", "-r", "locked@example.org", "--encrypt", stdin=LOG)
    mine.close()
    made.put("dmesg.txt.gpg", locked)
    (found,) = listed(capfd)
    assert (found["key"], found["panic"]) == (True, "")
    assert not (home / ".gnupg/S.gpg-agent").exists()


def test_a_hostile_stick(
    machine: FakeHost, keys: Keyring, capfd: pytest.CaptureFixture[str]
) -> None:
    """Links, pipes, and names that no crash kernel writes."""
    made = add(machine, keys, "99999999T999999Z")
    made.add("dmesg.txt", LOG)
    (made.path / "dmesg.txt.001").symlink_to("/etc/passwd")
    os.mkfifo(made.path / "vmcore.flat.gpg.000")
    add(machine, keys, "20260101T000000Z\x1b[2J")
    add(machine, keys, "20260101T000000Z", "NOT-A-MACHINE")
    machine.link(f"/mnt/tinykdump/{OTHER}", str(machine.path("/mnt/tinykdump")))
    machine.link(str(made.path.parent.relative_to(machine.root) / "20260105T000000Z"), "/etc")
    (found,) = listed(capfd)
    assert (found["time"], found["complete"]) == (None, False)
    assert "root:" not in json.dumps(found)


def test_a_link_in_place_of_the_dumps(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    machine.path(f"/elsewhere/{OTHER}/20260101T000000Z").mkdir(parents=True)
    machine.link("/mnt/tinykdump", str(machine.path("/elsewhere")))
    assert listed(capfd) == []


def test_the_place_of_a_stick_cannot_fool_the_terminal(
    machine: FakeHost, keys: Keyring, capfd: pytest.CaptureFixture[str]
) -> None:
    """Desktops make it of the label."""
    add(machine, keys, "20260101T000000Z", OTHER).add("dmesg.txt", LOG)
    machine.path("/mnt").rename(machine.path("/m\x1bc"))
    machine.write("/proc/self/mountinfo", "30 27 8:17 / /m\\033c rw - vfat /dev/sdb1 rw\n")
    assert cli.main(["list"]) == 0
    out = capfd.readouterr().out
    assert f"/m?c/tinykdump/{OTHER}/" in out
    assert "\x1b" not in out


@pytest.mark.checkout
def test_no_dump(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 1
    assert capfd.readouterr() == (
        "", "tinykdump: no dump was found (plug in the stick, and mount it or use --mount)\n"
    )  # fmt: skip
    machine.write("/proc/self/mountinfo")
    assert cli.main(["list"]) == 1
    assert capfd.readouterr().err.startswith(
        "tinykdump: /dev/sdb1 is not mounted (tinykdump list --mount reads it)\n"
    )


@pytest.mark.usefixtures("machine")
def test_only_root_mounts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert cli.main(["list", "--mount"]) == 1
    assert capfd.readouterr().err == (
        "tinykdump: only root can mount sticks (use sudo, or list without --mount)\n"
    )


@pytest.mark.checkout
def test_a_stick_that_cannot_be_mounted(
    machine: FakeHost, keys: Keyring, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line, nothing is left behind, and it does not hide the dumps of the others."""
    with plugged.plug(machine, "ext4", "sda1").open("r+b") as image:
        image.seek(2048)  # the group descriptors
        image.write(b"\xff" * 1024)
    add(machine, keys, "20260101T000000Z").add("dmesg.txt.gpg", LOG)
    assert cli.main(["list", "--mount"]) == 1
    out, err = capfd.readouterr()
    assert "/mnt/tinykdump/" in out
    assert err.startswith("tinykdump: /dev/sda1: mount failed: ")
    assert err.count("\n") == 1
    assert cli.main(["list", "--mount", "--json"]) == 1
    assert len(json.loads(capfd.readouterr().out)["dumps"]) == 1
    assert list(machine.path("/run/tinykdump").glob("stick-*")) == []


@pytest.mark.parametrize(
    ("log", "kernel", "reason"),
    [
        ("", "", ""),
        ("[    1.000000] BUG: kernel NULL pointer dereference, address: 0\n"
         "[    1.000001] CPU: 1 PID: 7 Comm: x Tainted: G        W  OE      6.1.0-9 #1 Debian\n"
         "[    1.000002] Kernel panic - not syncing: Fatal exception\n",
         "6.1.0-9", "Fatal exception"),
        ("[    1.000000] Oops: 0000 [#1] SMP\n"
         "[    1.000001] Tainted: [W]=WARN, [O]=OOT_MODULE\n", "", "Oops: 0000 [#1] SMP"),
        ("[    1.000000] user said: Kernel panic - not syncing: forged\n", "", ""),
        ("[    0.000000] Linux version 7.2.8-tinykdump (x)\n", "7.2.8-tinykdump", ""),
        # As makedumpfile writes a log of Debian 6.12.
        ("[    0.000000] [      T0] Linux version 6.12.117+deb13-amd64 (x)\n"
         "[   46.883697] [    T268] Kernel panic - not syncing: sysrq triggered crash\n",
         "6.12.117+deb13-amd64", "sysrq triggered crash"),
        ("[    1.000000][   C12] Kernel panic - not syncing: x\n", "", "x"),
        ("Kernel panic - not syncing: " + "x" * 999, "", "x" * 200),
    ],
)  # fmt: skip
def test_what_a_log_says(log: str, kernel: str, reason: str) -> None:
    assert (dmesg.kernel(log), dmesg.reason(log)) == (kernel, reason)


def test_a_log_that_is_made_to_take_long() -> None:
    """It takes milliseconds; with a pattern that tries all ways to divide the spaces, hours."""
    start = time.process_time()
    assert dmesg.kernel("Tainted: " + " " * 100_000) == ""
    assert dmesg.kernel(("Tainted: " + " " * 600) * 1000) == ""
    assert time.process_time() - start < 5


def test_recipients(keys: Keyring) -> None:
    to = ("--trust-model", "always", "-r", "good@example.org", "--encrypt")
    message = keys.gpg(*to, stdin=b"x")
    listed = keys.gpg("--with-colons", "--list-keys", "good@example.org").decode().splitlines()
    (subkey,) = (line.split(":")[4] for line in listed if line.startswith("sub:"))
    assert openpgp.recipient(message[: openpgp.HEAD]) == subkey
    # The same packet with a header of the new format.
    length = message[1]
    assert openpgp.recipient(bytes((0xC1, length)) + message[2:]) == subkey
    for wrong in (b"", b"\x84", message[:5], b"-----BEGIN", bytes((0xC2, length)) + message[2:]):
        assert openpgp.recipient(wrong) == ""


@pytest.mark.parametrize(
    ("name", "is_one"),
    [(OTHER, True), ("0123456789AB", False), ("0123456789a", False), ("..", False)],
)
def test_names_of_machines(name: str, is_one: bool) -> None:
    assert dump.is_machine(name) == is_one
