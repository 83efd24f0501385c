# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump key, with real keys: the machine's own, and one that the user has."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests import plugged
from tests.fakehost import FakeHost
from tests.keyring import Keyring
from tinykdump import backup, cli, keys
from tinykdump.clock import shown

NOTE = "/var/lib/tinykdump/backup.json"


@pytest.fixture
def machine(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """With its own key."""
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    monkeypatch.setenv("HOME", str(fake.path("/root")))
    keys.machine_key(fake.host, create=True)
    return fake


@pytest.fixture
def elsewhere(short_path: Path) -> Iterator[Keyring]:
    """The keyring of another machine."""
    made = Keyring(short_path / "elsewhere")
    made.home.mkdir(mode=0o700)
    yield made
    made.close()


def own(machine: FakeHost) -> keys.Key:
    return keys.machine_key(machine.host, create=False)


def problems(capfd: pytest.CaptureFixture[str]) -> list[str]:
    cli.main(["status", "--json"])
    found = json.loads(capfd.readouterr().out)["problems"]
    return [each for each in found if each.startswith("only this machine can read its dumps")]


def test_a_backup_reads_dumps_elsewhere(
    machine: FakeHost, elsewhere: Keyring, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And status is satisfied, until the machine gets another key."""
    assert len(problems(capfd)) == 1
    file = tmp_path / "secret.asc"
    assert cli.main(["key", "backup", str(file)]) == 0
    assert capfd.readouterr().out.startswith(f"{file}: the secret key {own(machine).fingerprint}\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert not list(machine.path(str(keys.MACHINE_KEYS)).glob("S.gpg-agent"))

    sender = machine.root / "sender"
    sender.mkdir(mode=0o700)
    mine = Keyring(sender)
    mine.gpg("--import", stdin=own(machine).public)
    to = ("--trust-model", "always", "-r", own(machine).fingerprint)
    message = mine.gpg(*to, "--encrypt", stdin=b"dump")
    mine.close()
    elsewhere.gpg("--import", stdin=file.read_bytes())
    assert elsewhere.gpg("--decrypt", stdin=message) == b"dump"

    assert problems(capfd) == []
    note = json.loads(machine.path(NOTE).read_text())
    machine.write(NOTE, json.dumps(note | {"key": "0" * 40}))
    assert len(problems(capfd)) == 1


@pytest.mark.parametrize("note", ["", "{", "[]", "{}", '{"key": 3}', "null"])
def test_a_damaged_note_is_none(machine: FakeHost, note: str) -> None:
    machine.write(NOTE, note)
    assert backup.made(machine.host, "0" * 40) is None


def test_a_key_of_the_user_needs_no_backup(
    machine: FakeHost, keys: Keyring, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.write("/root/key.asc", keys.public("good@example.org"))
    machine.write("/etc/default/tinykdump", "[dump]\nkey = /root/key.asc\n")
    assert problems(capfd) == []
    assert cli.main(["key", "backup", str(tmp_path / "x")]) == 1
    assert capfd.readouterr().err == (
        "tinykdump: dumps are encrypted to your key /root/key.asc, not to a key of this machine "
        "(back it up where its secret part is)\n"
    )
    assert cli.main(["key", "show"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        f"key:          {keys.fingerprint('good@example.org')}",
        "origin:       /root/key.asc",
        "expires:      never",
        "secret key:   not on this machine",
    ]
    machine.link("/root/.gnupg", str(keys.home))
    assert cli.main(["key", "show"]) == 0
    assert f"secret key:   {machine.path('/root/.gnupg')}\n" in capfd.readouterr().out


def test_what_is_shown(machine: FakeHost, tmp_path: Path,
                       capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert cli.main(["key", "show"]) == 0
    text = capfd.readouterr().out
    assert f"secret key:   {machine.path(str(keys.MACHINE_KEYS))}\n" in text
    assert "backup:       none (run tinykdump key backup FILE)\n" in text
    assert cli.main(["key", "backup", str(tmp_path / "x")]) == 0
    capfd.readouterr()
    cli.main(["key", "show"])
    when = datetime.fromisoformat(json.loads(machine.path(NOTE).read_text())["date"])
    assert f"backup:       {shown(when.astimezone())}\n" in capfd.readouterr().out


def test_the_public_key_is_exported(machine: FakeHost, elsewhere: Keyring,
                                    capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    assert cli.main(["key", "export"]) == 0
    text = capfd.readouterr().out
    assert text.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    elsewhere.gpg("--import", stdin=text.encode())
    assert elsewhere.fingerprint("tinykdump") == own(machine).fingerprint


def refused(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["key", *words]) in (1, 2)
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.removeprefix("tinykdump: ").rstrip("\n")


def test_what_is_refused(
    machine: FakeHost, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    assert refused(capfd, "backup", str(there)) == f"{there} exists (name a new file)"
    assert there.read_text() == "mine"
    nowhere = tmp_path / "none/x"
    assert refused(capfd, "backup", str(nowhere)).startswith(f"{nowhere}: No such file")
    usage = "only key backup takes a file, and it needs one (write tinykdump key backup FILE)"
    assert refused(capfd, "backup") == refused(capfd, "show", "x") == usage
    assert not machine.path(NOTE).exists()
    machine.write("/etc/default/tinykdump", "[dump]\nencrypt = no\n")
    assert refused(capfd, "show") == "dumps are not encrypted (set encrypt = yes in [dump])"
    machine.remove("/etc/default/tinykdump")
    machine.remove(str(keys.MACHINE_KEYS))
    assert refused(capfd, "show").startswith("this machine has no key yet (on the running system")


@pytest.mark.checkout
def test_a_full_disk(machine: FakeHost, tmp_path: Path,
                     capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """A real one; nothing that looks like a backup stays, and none is noted."""
    tmp_path.joinpath("full").mkdir()
    full = tmp_path / "full/x"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", full.parent], check=True)
    try:
        full.with_name("there").write_bytes(bytes(4096))
        assert refused(capfd, "backup", str(full)) == (
            f"{full}: No space left on device (free space on that file system)"
        )
        assert not full.exists()
    finally:
        subprocess.run(["umount", full.parent], check=True)
    assert not machine.path(NOTE).exists()


def test_an_interrupted_backup_leaves_no_part_of_a_key(
    machine: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        assert cli.main(["key", "backup", str(tmp_path / "key")]) == cli.INTERRUPTED
    assert not tmp_path.joinpath("key").exists()
    assert not machine.path(NOTE).exists()


def test_not_onto_the_stick(machine: FakeHost, tmp_path: Path,
                            capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Nor through a link to it."""
    plugged.plug(machine, "vfat")
    machine.write("/proc/self/mountinfo", "30 27 8:17 / /mnt rw shared:2 - vfat /dev/sdb1 rw\n")
    machine.path("/mnt/keys").mkdir(parents=True)
    (tmp_path / "link").symlink_to(machine.path("/mnt"))
    for file in (machine.path("/mnt/keys/secret"), tmp_path / "link/secret"):
        assert refused(capfd, "backup", str(file)).startswith(f"{file} is on the stick, where ")
    assert not list(machine.path("/mnt").rglob("secret"))
