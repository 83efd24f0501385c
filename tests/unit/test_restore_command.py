# SPDX-License-Identifier: GPL-2.0-or-later
"""What `tinykdump restore` does by itself: which dump, where to, whose keys, what it shows."""

import os
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import suppress
from pathlib import Path

import pytest

from tests.dumped import CORE, LOG, Dump, flat, names
from tests.fakehost import SOURCE, FakeHost
from tinykdump import cli, hardware
from tinykdump.host import Host
from tinykdump.keys import MACHINE_KEYS, machine_key

TIME = "20261123T033808Z"

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def fake_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dump: Dump) -> Path:
    """A machine with a mounted stick, that has the dump of another machine."""
    root = tmp_path / "root"
    for name, text in {
        "etc/machine-id": "0" * 32,
        "proc/sys/kernel/hostname": "here.example.org",
        "proc/self/mountinfo": "30 1 8:1 / /media rw - vfat /dev/sda1 rw\n",
        "sys/class/block/sda1/uevent": "DEVNAME=sda1",
        "sys/class/block/sda1/size": "1",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    disk = root / "sys/devices/usb1/1-1/sda1"
    disk.parent.mkdir(parents=True)
    (root / "sys/class/block/sda1").rename(disk)
    (root / "sys/class/block/sda1").symlink_to("../../devices/usb1/1-1/sda1")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(root))
    monkeypatch.setenv("GNUPGHOME", str(dump.keys.home))
    monkeypatch.chdir(tmp_path)
    return root


def on_stick(root: Path, dump: Dump, machine: str = "fb0646cb5b56") -> Path:
    """Move the dump to the stick."""
    place = root / "media/tinykdump" / machine
    place.mkdir(parents=True, exist_ok=True)
    dump.path.rename(place / TIME)
    return place / TIME


@pytest.mark.parametrize("user", ["root", "other"])
def test_the_latest_goes_where_kdump_would_save_it(
    fake_root: Path, dump: Dump, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, user: str,
) -> None:  # fmt: skip
    """ABRT takes any directory in /var/crash that has a file vmcore. Only root can write there."""
    dump.add("dmesg.txt.gpg", LOG)
    dump.add("vmcore.flat.gpg", flat(CORE))
    on_stick(fake_root, dump)
    monkeypatch.setattr(os, "geteuid", lambda: 0 if user == "root" else 1000)
    assert cli.main(["restore"]) == 0
    top = fake_root / "var/crash" if user == "root" else Path()
    target = top / "fb0646cb5b56-2026-11-23-03:38:08"
    assert capfd.readouterr().out.splitlines() == [
        f"{target}/vmcore-dmesg.txt", f"{target}/vmcore"
    ]  # fmt: skip
    assert names(target) == ["vmcore", "vmcore-dmesg.txt"]
    assert target.stat().st_mode & 0o777 == 0o700
    assert cli.main(["restore"]) == 1
    assert f"{target} exists (name another directory with" in capfd.readouterr().err


def test_a_dump_of_this_machine_has_its_host_name(fake_root: Path, dump: Dump) -> None:
    dump.add("dmesg.txt.gpg", LOG)
    dump.add("vmcore.flat.gpg", flat(CORE))
    on_stick(fake_root, dump, hardware.machine_name(Host(fake_root)))
    assert cli.main(["restore", "latest"]) == 0
    place = fake_root / "var/crash" if os.geteuid() == 0 else Path()
    assert names(place / "here.example.org-2026-11-23-03:38:08") == ["vmcore", "vmcore-dmesg.txt"]


def test_what_has_no_vmcore_can_be_restored_again(
    fake_root: Path, dump: Dump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the right key, or once the disk has space."""
    dump.add("dmesg.txt.gpg", LOG)
    dump.add("vmcore.flat.gpg", flat(CORE))
    on_stick(fake_root, dump)
    (fake_root / "empty").mkdir(mode=0o700)
    assert cli.main(["restore", "--keys", str(fake_root / "empty")]) == 1
    top = fake_root / "var/crash" if os.geteuid() == 0 else Path()
    target = top / "fb0646cb5b56-2026-11-23-03:38:08"
    assert names(target) == []

    free = iter((1 << 30, 0))  # before the log, and before the vmcore
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda _: Usage(1 << 30, 0, next(free)))
        assert cli.main(["restore"]) == 1
    assert names(target) == ["vmcore-dmesg.txt"]
    assert cli.main(["restore"]) == 0
    assert names(target) == ["vmcore", "vmcore-dmesg.txt"]
    assert cli.main(["restore"]) == 1, "it is there"


@pytest.mark.parametrize("there", ["notes", "a link", "of another user"])
def test_a_directory_that_no_restore_left(
    fake_root: Path, dump: Dump, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    there: str,
) -> None:  # fmt: skip
    dump.add("vmcore.flat.gpg", flat(CORE))
    on_stick(fake_root, dump)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + (there == "of another user"))
    target = Path("fb0646cb5b56-2026-11-23-03:38:08")
    if os.geteuid() == 0:
        target = fake_root / "var/crash" / target
    target.parent.mkdir(parents=True, exist_ok=True)
    if there == "a link":
        (fake_root / "elsewhere").mkdir()
        target.symlink_to(fake_root / "elsewhere")
    else:
        target.mkdir()
    if there == "notes":
        (target / "notes").write_text("mine")
    assert cli.main(["restore"]) == 1
    assert f"{target} exists (name another directory with" in capfd.readouterr().err
    assert names(target) == ["notes"] * (there == "notes")


def test_the_machines_key_and_the_users(
    fake_root: Path, dump: Dump, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whichever of them the dump is encrypted to."""
    machine = fake_root / "var/lib/tinykdump/keys"
    machine.parent.mkdir(parents=True)
    machine.mkdir(mode=0o700)
    dump.add("dmesg.txt.gpg", LOG)
    assert cli.main(["restore", "--dmesg", str(dump.path)]) == 0
    assert capfd.readouterr().out.encode() == LOG


def test_no_agent_of_the_machines_key_stays_behind(
    fake: FakeHost, dump: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    key = machine_key(fake.host, create=True)
    public = fake.write("/key", key.public)
    content = dump.keys.gpg("--trust-model", "always", "--recipient-file", str(public),
                            "--encrypt", "--compress-algo", "none", stdin=flat(CORE))  # fmt: skip
    dump.put("vmcore.flat.gpg", content)
    assert cli.main(["restore", str(dump.path), "-o", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == ["vmcore"]
    # It ends by itself as soon as it was told to, and removes its sockets then.
    deadline = time.monotonic() + 60
    while list(fake.path(str(MACHINE_KEYS)).glob("S.*")):
        assert time.monotonic() < deadline, "the agent still runs"
        time.sleep(0.05)


@pytest.mark.parametrize("suffix", [".gpg", ""])
def test_the_log_alone(
    dump: Dump, capfd: pytest.CaptureFixture[str], tmp_path: Path, suffix: str
) -> None:
    """It does not read the vmcore, and writes nothing."""
    dump.add(f"dmesg.txt{suffix}", LOG)
    dump.put(f"vmcore.flat{suffix}", b"not read")
    command = ["restore", "--dmesg", "--keys", str(dump.keys.home), str(dump.path)]
    before = names(tmp_path)
    assert cli.main([*command, "--plain"]) == 0
    assert capfd.readouterr() == (LOG.decode(), "")
    assert names(tmp_path) == before
    if not suffix:
        assert cli.main(command) == 1
        out, err = capfd.readouterr()
        assert (out, "vmcore-dmesg.txt is not encrypted" in err) == ("", True)


def test_a_log_that_was_cut(dump: Dump, capfd: pytest.CaptureFixture[str]) -> None:
    dump.add("dmesg.txt.gpg", LOG)
    part = dump.path / "dmesg.txt.gpg.000"
    part.write_bytes(part.read_bytes()[:-5000])
    command = ["restore", "--dmesg", "--keys", str(dump.keys.home), str(dump.path)]
    assert cli.main(command) == 1
    out, err = capfd.readouterr()
    assert len(out) > len(LOG) - 20_000
    assert err.startswith(f"tinykdump: {part} is damaged: ")
    part.unlink()
    assert cli.main(command) == 1
    assert "has no dmesg.txt (restore the vmcore)" in capfd.readouterr().err


def on_terminal(dump: Dump, *words: str, encoding: str = "utf-8") -> str:
    """What `tinykdump restore` writes to a terminal, in a process of its own."""
    ours, theirs = os.openpty()
    argv = [sys.executable, "-m", "tinykdump", "restore", "--keys", str(dump.keys.home), *words]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "TERM": "xterm",
                   "PYTHONIOENCODING": encoding}  # fmt: skip
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
                          env=environment) as running:  # fmt: skip
        os.close(theirs)
        said = b""
        with suppress(OSError):  # EIO: the process has ended
            while chunk := os.read(ours, 1 << 16):
                said += chunk
    os.close(ours)
    assert running.returncode == 0, said
    return said.decode(encoding)


def test_a_log_on_a_terminal_cannot_control_it(dump: Dump) -> None:
    dump.add("dmesg.txt.gpg", b"a \x1b]0;title\x07\t\xc3\xa9 \xff \xc2\x9b2J\n")
    said = on_terminal(dump, "--dmesg", str(dump.path))
    assert said == "a \\x1b]0;title\\x07\t\u00e9 \ufffd \\x9b2J\r\n"
    said = on_terminal(dump, "--dmesg", str(dump.path), encoding="latin-1")
    assert said == "a \\x1b]0;title\\x07\t\u00e9 \\ufffd \\x9b2J\r\n"


@pytest.mark.parametrize("size", [1000, 40 << 20])
def test_a_bar_on_a_terminal(dump: Dump, tmp_path: Path, size: int) -> None:
    """With the rate and the time left; not for what is done at once."""
    dump.add("vmcore.flat.gpg", flat([(0, bytes(size))]), part=100 << 20)
    said = on_terminal(dump, str(dump.path), "-o", str(tmp_path / "out"))
    assert ("restoring" in said and "MB/s" in said and "0:00:0" in said) == (size > 1000)
    assert said.rstrip().endswith("/vmcore")
