# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump prepare: what is wrong is one line, and nothing is changed. tests/vm formats disks."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests import plugged
from tests.fakehost import FakeHost
from tests.plugged import MIB
from tests.unit.test_disks import device
from tinykdump import cli, prepare, stick
from tinykdump.config_files import load_config
from tinykdump.run import Finished


@pytest.fixture
def machine(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """With a stick, sdb, and an internal disk, sda. lsblk cannot look at a tree: it is played."""
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    plugged.plug(fake, "ext4", label="PHOTOS", size=64 * MIB)
    plugged.plug(fake, "vfat", "sda1", usb=False, label="EFI")
    show(fake, monkeypatch)
    return fake


def show(fake: FakeHost, monkeypatch: pytest.MonkeyPatch, *, content: bytes = b"",
         **changes: Any) -> None:  # fmt: skip
    """What lsblk prints from now on; ``changes`` are those of the part sdb1, ``content`` its start.

    What is on a part is asked of blkid.
    """
    if content:
        fake.path("/dev/sdb1").write_bytes(content.ljust(MIB, b"\0"))
    part = device("/dev/sdb1", "part", size=64 * MIB) | changes
    found = [
        device("/dev/sda", children=[device("/dev/sda1", "part", fstype="vfat")]),
        device("/dev/sdb", model="Flash", size=65 * MIB, children=[part]),
    ]
    listed = json.dumps({"blockdevices": found}).encode()
    monkeypatch.setattr(prepare, "_listed", lambda: listed)
    fake.write("/proc/meminfo", "MemTotal: 30000 kB\n")


class Terminal(io.StringIO):
    """Standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


def devices(fake: FakeHost) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in fake.path("/dev").iterdir() if path.is_file()}


LONG = "[dump]\ntarget = LABEL=A-LONG-LABEL\n"
UUID = "[dump]\ntarget = UUID=1234\n"
DOT = "[dump]\ntarget = LABEL=my.dumps\n"
CASES: list[tuple[str, dict[str, Any], str, list[str], str]] = [
    ("internal", {}, "", ["/dev/sda"], "/dev/sda is not a disk behind USB (name another disk; "),
    ("none", {}, "", ["/dev/none"], "/dev/none is not a disk (name another disk; "),
    ("a part", {}, "", ["/dev/sdb1"], "/dev/sdb1 is a part of a disk (name the disk, or keep "),
    ("mounted", {"mountpoints": ["/home"]}, "", ["/dev/sdb"],
     "/dev/sdb1 is mounted on /home (umount /dev/sdb1 first)"),
    ("LUKS", {"content": b"LUKS\xba\xbe\0\x01"}, "", ["/dev/sdb"],
     "/dev/sdb1 is an encrypted disk ("),
    ("by UUID", {}, UUID, ["/dev/sdb"], "the dump target is UUID=1234, but prepare sets a label ("),
    ("long label", {}, LONG, ["/dev/sdb"], "the label A-LONG-LABEL has more than 11 characters, "),
    ("no label of FAT", {}, DOT, ["/dev/sdb"],
     "the label my.dumps has a ., which no label of vfat "),
    ("file system", {}, "", ["/dev/sdb", "--filesystem", "ext4"],
     "the crash kernel cannot mount ext4 (choose one of vfat)"),
    ("data", {}, "", ["/dev/sdb", "--keep-data"],
     "/dev/sdb1 has ext4, which does not suit dumps ("),
    ("no data", {"content": b"\0"}, "", ["/dev/sdb", "--keep-data"],
     "/dev/sdb has no file systems ("),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_what_is_refused(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    case: tuple[str, dict[str, Any], str, list[str], str],
) -> None:  # fmt: skip
    _, changes, configuration, words, says = case
    show(machine, monkeypatch, **changes)
    machine.write("/etc/default/tinykdump", configuration)
    before = devices(machine)
    assert cli.main(["prepare", "--yes", *words]) == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"tinykdump: {says}")
    assert devices(machine) == before


def test_without_a_terminal(machine: FakeHost, monkeypatch: pytest.MonkeyPatch,
                            capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    before = devices(machine)
    monkeypatch.setattr("sys.stdin", io.StringIO("sdb\n"))
    assert cli.main(["prepare", "/dev/sdb"]) == 1
    assert capfd.readouterr() == (
        "", "tinykdump: nobody can be asked: there is no terminal (add --yes)\n"
    )  # fmt: skip
    assert devices(machine) == before


@pytest.mark.parametrize("answer", ["", "\n", "y\n", "yes\n", "sda\n", "sdb1\n"])
def test_another_answer(machine: FakeHost, monkeypatch: pytest.MonkeyPatch,
                        capfd: pytest.CaptureFixture[str], answer: str) -> None:  # fmt: skip
    before = devices(machine)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert cli.main(["prepare", "/dev/sdb"]) == 1
    out, err = capfd.readouterr()
    assert out.startswith("/dev/sdb  65 MiB  Flash\n  /dev/sdb1  64 MiB  ext4 'PHOTOS'\n")
    assert "Everything on /dev/sdb will be lost. Type the name of the disk (sdb) " in out
    assert err == "tinykdump: nothing was changed (type sdb to go on)\n"
    assert devices(machine) == before


def test_a_disk_that_is_replaced_meanwhile(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By one that looks the same; the kernel gives each medium a number."""
    machine.write("/sys/class/block/sdb/diskseq", "8\n")

    class Slow(Terminal):
        def readline(self, *_: Any) -> str:  # type: ignore[override]  # bytes, says its first base
            machine.write("/sys/class/block/sdb/diskseq", "9\n")
            return "sdb\n"

    before = devices(machine)
    monkeypatch.setattr("sys.stdin", Slow())
    assert cli.main(["prepare", "/dev/sdb"]) == 1
    err = capfd.readouterr().err
    assert err == "tinykdump: /dev/sdb is not what it was before the question (run it again)\n"
    assert devices(machine) == before


@pytest.mark.usefixtures("machine")
def test_a_disk_that_is_pulled_out_while_it_is_partitioned(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def played(argv: list[str], **_: object) -> Finished:
        if argv[0] == "sfdisk":
            monkeypatch.setattr(prepare, "_listed", lambda: b'{"blockdevices": []}')
        return Finished(0, b"", "")

    monkeypatch.setattr(prepare, "run", played)
    assert cli.main(["prepare", "--yes", "/dev/sdb"]) == 1
    assert capfd.readouterr().err == (
        "tinykdump: /dev/sdb has no partition after partitioning it "
        "(plug it in again, and try again)\n"
    )


def test_a_small_disk(machine: FakeHost, monkeypatch: pytest.MonkeyPatch,
                      capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    machine.write("/proc/meminfo", "MemTotal: 300000 kB\n")
    monkeypatch.setattr("sys.stdin", Terminal())
    assert cli.main(["prepare", "/dev/sdb"]) == 1
    assert capfd.readouterr().err.startswith(
        "tinykdump: /dev/sdb has 65 MiB, but a dump takes up to 0.3 GiB (use a larger stick)\n"
    )


def test_a_program_that_is_not_installed(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Found before anything is changed."""
    before = devices(machine)
    monkeypatch.setattr(prepare, "is_installed", lambda name: name != "mkfs.vfat")
    assert cli.main(["prepare", "--yes", "/dev/sdb"]) == 1
    assert capfd.readouterr() == (
        "", "tinykdump: mkfs.vfat is not installed (install dosfstools)\n"
    )  # fmt: skip
    assert devices(machine) == before


def test_the_list(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prepare"]) == 0
    assert capfd.readouterr() == (
        "/dev/sdb  65 MiB  Flash\n  /dev/sdb1  64 MiB  ext4 'PHOTOS'\n",
        "tinykdump: nothing was changed (name one of these disks)\n",
    )
    machine.remove("/sys/class/block")
    assert cli.main(["prepare"]) == 1
    assert capfd.readouterr().err == "tinykdump: no USB disk is plugged in (plug in a stick)\n"


def test_a_link_names_a_disk(machine: FakeHost) -> None:
    machine.link("/dev/disk/by-id/usb-Flash", "../../sdb")
    assert prepare.plan(
        machine.host, load_config(machine.host, {}), Path("/dev/disk/by-id/usb-Flash")
    ).disk.path == Path("/dev/sdb")


def test_data_is_kept(machine: FakeHost, monkeypatch: pytest.MonkeyPatch,
                      capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Of the one file system of the disk; nothing else is written."""
    plugged.made(machine.path("/dev/sdb1"), "vfat", label="PHOTOS")
    plugged.fill(machine.path("/dev/sdb1"), "photo", 100)
    machine.write("/sys/class/block/sdb/diskseq", "8\n")
    before = devices(machine)
    monkeypatch.setattr("sys.stdin", Terminal("sdb1\n"))
    assert cli.main(["prepare", "--keep-data", "/dev/sdb"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("/dev/sdb1  64 MiB  vfat 'PHOTOS'\n")
    assert "The label of /dev/sdb1 will become TINYKDUMP. Type the name of the disk (sdb1)" in out
    assert out.endswith("/dev/sdb1 is ready: vfat, LABEL=TINYKDUMP\n")
    after = devices(machine)
    assert {name for name in before if before[name] != after[name]} == {"sdb1"}
    assert stick.probe(machine.host, Path("/dev/sdb1"))["LABEL"] == "TINYKDUMP"
    assert plugged.free_of_fat(machine.path("/dev/sdb1")) < 64 * MIB - 100


@pytest.mark.parametrize("encrypted", [True, False])
def test_the_readme_on_the_stick(encrypted: bool) -> None:
    text = prepare.readme("db1.example.org", "fb0646cb5b56", encrypted=encrypted)
    assert "db1.example.org" in text
    assert "tinykdump/fb0646cb5b56" in text
    assert ("NOT ENCRYPTED" in text) != encrypted
    assert all(len(line) < 80 for line in text.splitlines())
