# SPDX-License-Identifier: GPL-2.0-or-later
"""Rehearsals without a guest; tests/vm/test_rehearsal.py runs them."""

import json
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests import fakehost, plugged
from tests.dumped import Dump, flat
from tests.fakehost import KVER, STATE, FakeHost, make_live
from tests.keyring import Keyring
from tests.unit.test_guest import CRASH, SAVED, SYSTEM
from tests.unit.test_vmcoreinfo import kdump
from tinykdump import cli, guest, kernel_install, rehearsal, run, units
from tinykdump.config_files import load_config
from tinykdump.errors import TinykdumpError
from tinykdump.image import entries
from tinykdump.image.manifest import Manifest, parse
from tinykdump.readback import Wanted, check
from tinykdump.run import Finished

NOTE = str(rehearsal.NOTE)
CONFIG = "/etc/default/tinykdump"


@pytest.fixture
def machine(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """One with an image that is loaded, whose dumps are not encrypted."""
    fake.write(CONFIG, "[dump]\nencrypt = no\n")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    assert cli.main(["-b"]) == 0
    fake.write("/run/tinykdump/loaded.json", fake.path(f"{STATE}/manifest.json").read_text())
    fake.write("/sys/kernel/kexec_crash_loaded", "1\n")
    fake.write("/sys/kernel/kexec_crash_size", f"{90 << 20}\n")
    return fake


def manifest(machine: FakeHost) -> Manifest:
    return parse(machine.path(f"{STATE}/manifest.json").read_text(), "m")


def note(machine: FakeHost, **changes: Any) -> None:
    found = {"time": "2026-11-26T12:00:00+00:00", "kernel": KVER, "image": manifest(machine).sha256,
             "passed": True, "result": "saved; x"}  # fmt: skip
    machine.write(NOTE, json.dumps(found | changes))


def status(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capfd.readouterr()
    cli.main(["status", "--json"])
    return dict(json.loads(capfd.readouterr().out))


def subject(machine: FakeHost, kver: str = "") -> rehearsal.Subject:
    return rehearsal.subject(machine.host, load_config(machine.host, {}), kver)


def about(found: dict[str, Any]) -> list[str]:
    return [each for each in found["problems"] if "rehears" in each]


def test_the_subject_is_what_is_loaded(machine: FakeHost) -> None:
    """With its reservation; another image needs what is computed."""
    for kver in ("", KVER):
        what = subject(machine, kver)
        assert (what.image, what.reserved) == (manifest(machine), 90 << 20)
        assert what.packed == machine.image().read_bytes()
    machine.write("/sys/kernel/kexec_crash_loaded", "0\n")
    what = subject(machine)
    assert what.image == manifest(machine)
    assert what.reserved not in (0, 90 << 20)


@pytest.mark.usefixtures("machine")
def test_a_kernel_that_is_not_installed(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--kernel", "9.9", "test", "--rehearse"]) == 1
    assert capfd.readouterr().err.count("\n") == 1


def test_no_image(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    machine.write("/sys/kernel/kexec_crash_loaded", "0\n")
    machine.remove(STATE)
    assert cli.main(["test", "--rehearse"]) == 1
    says = f"tinykdump: no image for {KVER} (run tinykdump -b --kernel {KVER})\n"
    assert capfd.readouterr().err == says


def test_the_crash_kernel_can_be_another_one(machine: FakeHost) -> None:
    """The one that is loaded, whatever crashes; or the one that the configuration names."""
    other = fakehost.bzimage(release="6.6-small")
    machine.write("/usr/lib/tinykdump/kernel/vmlinuz", other)
    machine.write("/usr/lib/tinykdump/kernel/modules.builtin", "")
    small = replace(manifest(machine), kver="6.6-small", kernel="/usr/lib/tinykdump/kernel/vmlinuz")
    machine.write("/run/tinykdump/loaded.json", small.to_json())
    place = machine.path(f"/var/lib/tinykdump/images/6.6-small/{machine.image().name}")
    place.parent.mkdir()
    place.write_bytes(machine.image().read_bytes())
    what = subject(machine)
    assert (what.system.kver, what.image.kver) == (KVER, "6.6-small")
    assert (what.system_image != other, what.crash_image) == (True, other)
    assert subject(machine, KVER).image.kver == KVER
    machine.write(CONFIG, "[dump]\nencrypt = no\n[image]\nkernel = small\n")
    assert subject(machine, KVER).image.kver == "6.6-small"


def test_without_qemu(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, and nothing is noted or left."""
    monkeypatch.setattr(rehearsal, "is_installed", lambda name: not name.startswith(("qemu", "/")))
    assert cli.main(["test", "--rehearse"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        "tinykdump: qemu-system-x86_64 is not installed (install qemu-system-x86 (on Fedora: "
        "qemu-system-x86-core, on RHEL: qemu-kvm, on SUSE: qemu-x86))"
    )
    assert not machine.path(NOTE).exists()
    assert not machine.path(str(rehearsal.PLACE)).exists()


def test_the_stick_has_the_file_system_of_the_one_that_is_plugged_in(machine: FakeHost) -> None:
    image = manifest(machine)
    assert rehearsal._filesystem(machine.host, image) == "vfat"
    dotted = replace(image, target="LABEL=my.dumps", filesystems=("vfat", "exfat"))
    assert rehearsal._filesystem(machine.host, dotted) == "exfat"
    plugged.plug(machine, "ext4")
    assert rehearsal._filesystem(machine.host, image) == "ext4"


def test_without_a_program_that_makes_it(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "is_installed", lambda name: not name.startswith("mkfs"))
    with pytest.raises(TinykdumpError, match=r"^mkfs.vfat is not installed \(install dosfstools\)"):
        rehearsal._filesystem(machine.host, manifest(machine))


@pytest.mark.parametrize(
    ("kind", "target"),
    [("vfat", "LABEL=TINYKDUMP"), ("exfat", "LABEL=TINYKDUMP"), ("ext4", "LABEL=TINYKDUMP"),
     ("vfat", "UUID=1234-ABCD"), ("ext4", "UUID=6de1bb52-9ea5-4a3c-8c5b-8bd9fd0a6f43")],
)  # fmt: skip
def test_the_virtual_stick_is_what_the_image_looks_for(
    tmp_path: Path, kind: str, target: str
) -> None:
    made = guest.Guest(tmp_path, tmp_path, tmp_path / "stick", tmp_path, "", 0)
    rehearsal._make_stick(made, kind, target)
    tags = subprocess.run(["blkid", "-p", "-o", "export", made.stick], check=True,
                          capture_output=True).stdout.decode().splitlines()  # fmt: skip
    assert {target, f"TYPE={kind}"} <= set(tags)
    assert made.stick.stat().st_size > made.memory


def test_a_uuid_that_cannot_be_given(tmp_path: Path) -> None:
    made = guest.Guest(tmp_path, tmp_path, tmp_path / "stick", tmp_path, "", 0)
    with pytest.raises(TinykdumpError, match="no exfat with a given UUID can be made"):
        rehearsal._make_stick(made, "exfat", "UUID=1234-ABCD")


def test_the_guests_image(machine: FakeHost) -> None:
    """It has what kexec needs, and the crash kernel's files as they are."""
    fakehost.install_real(machine, "kexec")
    what = subject(machine)
    found = entries.plan(rehearsal._entries(machine.host, what, "7"))
    planned = {each.path: each for each in found}
    assert planned["/image"].content == machine.image().read_bytes()
    assert planned["/kernel"].content == machine.path(what.image.kernel).read_bytes()
    assert planned["/cmdline"].content.decode().startswith(f"{what.image.cmdline} ")
    assert planned["/id"].content == b"7"
    assert {"/bin/sh", "/bin/kexec", "/dev", "/proc", "/sys"} <= set(planned)
    assert any(path.startswith("/lib/libc.") for path in planned)
    assert planned["/init"].mode & stat.S_IXUSR


@pytest.fixture
def emulated(machine: FakeHost, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """QEMU is a script that writes the console; returns its lines, to be changed."""
    fakehost.install_real(machine, "kexec")
    console = machine.path(str(rehearsal.CONSOLE))
    lines: list[str] = []

    @contextmanager
    def started(_words: Sequence[str], errors: Path) -> Iterator[object]:
        errors.write_text("qemu: no such board\n")
        console.write_text("".join(f"{line}\r\n" for line in lines))
        yield lambda: False

    monkeypatch.setattr(rehearsal, "started", started)
    monkeypatch.setattr(rehearsal, "is_installed", lambda _name: True)
    return lines


@pytest.mark.slow
def test_a_guest_that_does_not_start(
    machine: FakeHost, emulated: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """QEMU's own message is shown, and nothing is noted."""
    emulated.append("Booting from ROM")
    assert cli.main(["test", "--rehearse"]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == (
        "tinykdump: qemu-system-x86_64 runs no guest: qemu: no such board (see "
        "/var/lib/tinykdump/rehearsal/console.log)"
    )
    assert not machine.path(NOTE).exists()


@pytest.mark.usefixtures("emulated")
def test_a_full_disk_does_not_stay_full(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """When there is no room for the stick, the guest's kernel and image are there already."""

    def full(argv: list[str], **given: Any) -> Finished:
        raise TinykdumpError(f"{argv[0]} failed: No space left on device", given["hint"])

    monkeypatch.setattr(rehearsal, "run", full)
    assert cli.main(["test", "--rehearse"]) == 1
    assert capfd.readouterr().err == (
        "tinykdump: mkfs.vfat failed: No space left on device (check that /var has room)\n"
    )
    there = machine.path(str(rehearsal.PLACE))
    assert [each.name for each in there.iterdir()] == ["console.log"]


@pytest.mark.slow
def test_a_failure_is_noted_and_a_problem(
    machine: FakeHost, emulated: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    emulated += [
        "[    1.0] Linux version 6.1", "[    1.000000] tinykdump: rehearsal: loading",
        "[    1.100000] tinykdump: rehearsal failed: kexec: it does not fit",
    ]  # fmt: skip
    assert cli.main(["test", "--rehearse"]) == 1
    err = capfd.readouterr().err.splitlines()
    assert "tinykdump: rehearsal: loading" in err
    assert err[-1] == (
        f"tinykdump: the rehearsal of {KVER} failed: kexec: it does not fit (with 90 MiB reserved) "
        "(read /var/lib/tinykdump/rehearsal/console.log)"
    )
    found = status(capfd)
    assert (found["rehearsal"]["passed"], found["rehearsal"]["kernel"]) == (False, KVER)
    assert len(about(found)) == 1
    there = machine.path(str(rehearsal.PLACE))
    assert [each.name for each in there.iterdir()] == ["console.log"]


@pytest.mark.slow
@pytest.mark.usefixtures("emulated")
def test_a_guest_that_hangs_and_goes_on_saying_so(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is never silent, as a kernel whose processors stall."""
    console = machine.path(str(rehearsal.CONSOLE))

    @contextmanager
    def started(_words: Sequence[str], errors: Path) -> Iterator[object]:
        errors.write_text("")
        console.write_text("[    1.0] Linux version 6.1\r\n")

        def stalls() -> bool:
            with console.open("a") as file:
                file.write("[    2.0] rcu: INFO: rcu_preempt detected stalls\r\n")
            return True

        yield stalls

    monkeypatch.setattr(rehearsal, "started", started)
    monkeypatch.setattr(rehearsal, "_LONGEST", 1.0)
    assert cli.main(["test", "--rehearse"]) == 1
    assert f"the rehearsal of {KVER} failed: " in capfd.readouterr().err
    assert status(capfd)["rehearsal"]["passed"] is False


def test_a_stick_that_cannot_be_mounted_here_is_no_success(
    emulated: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The crash kernel says that it saved a dump, and nobody has seen it."""
    emulated += (SYSTEM + CRASH + SAVED).splitlines()

    def fail(*_: object, **_more: object) -> None:
        raise TinykdumpError("mount failed: unknown filesystem type 'vfat'", "check the stick")

    monkeypatch.setattr("tinykdump.mounts.mounted", fail)
    assert cli.main(["test", "--rehearse"]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(f"tinykdump: the rehearsal of {KVER} failed: saved, but not checked: ")
    assert "mount failed: unknown filesystem type 'vfat' (read " in last
    assert status(capfd)["rehearsal"]["passed"] is False


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, None),
        ({"passed": False}, "failed: saved; x (read /var/lib/tinykdump/rehearsal/console.log, then "
         "run tinykdump test --rehearse again)"),
        ({"image": "0" * 64}, "with another image than the loaded one (run tinykdump test "
         "--rehearse)"),
    ],
)  # fmt: skip
def test_what_status_says(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], changes: dict[str, Any], says: str | None
) -> None:
    assert about(status(capfd)) == [], "none is no problem"
    note(machine, **changes)
    found = about(status(capfd))
    assert [each.endswith(says or "") for each in found] == [True] * bool(says)
    cli.main(["status"])
    failed = "failed: " * (changes.get("passed") is False)
    assert f" UTC: {KVER}, {failed}saved; x\n" in capfd.readouterr().out


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"time": 3}'])
def test_a_note_that_cannot_be_read_counts_as_none(machine: FakeHost, text: str) -> None:
    machine.write(NOTE, text)
    assert rehearsal.last(machine.host) is None


def test_its_directory_is_no_image_of_an_older_version(machine: FakeHost) -> None:
    """Those are moved."""
    machine.write(f"{rehearsal.PLACE}/console.log", "x")
    cli.main(["-b"])
    assert machine.path(f"{rehearsal.PLACE}/console.log").exists()


@pytest.mark.parametrize(("configured", "asked"), [("yes", 1), ("no", 0)])
def test_a_new_kernel_is_rehearsed_if_that_is_configured(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, configured: str, asked: int
) -> None:
    """In the background, also if it cannot be loaded."""
    came: list[list[str]] = []

    def called(words: list[str], **_: str) -> Finished | None:
        if words[0] == "systemctl":
            came.append(words)
            return None
        return run.run(words)

    monkeypatch.setattr(units, "run", called)
    machine.write(CONFIG, f"[dump]\nencrypt = no\n[rehearsal]\non_install = {configured}\n")
    words = ["add", KVER, "/boot/x", f"/lib/modules/{KVER}/vmlinuz"]
    assert kernel_install.main(words) == 0
    assert came == [], "this is not the running system"
    make_live(monkeypatch)
    monkeypatch.setattr("tinykdump.image.build._try_programs", lambda _: None)
    assert kernel_install.main(words) == 0
    unit = "tinykdump-rehearse@6.1.0\\x2dfake.service"
    assert came == [["systemctl", "--no-block", "start", unit]] * asked


def test_a_rehearsal_that_cannot_be_started_is_one_line(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_words: list[str], **_: str) -> None:
        raise TinykdumpError("systemctl failed: no", "see x")

    monkeypatch.setattr(units, "run", fail)
    machine.write(CONFIG, "[dump]\nencrypt = no\n[rehearsal]\non_install = yes\n")
    make_live(monkeypatch)
    monkeypatch.setattr("tinykdump.image.build._try_programs", lambda _: None)
    capfd.readouterr()
    assert kernel_install.main(["add", KVER, "/boot/x", f"/lib/modules/{KVER}/vmlinuz"]) == 0
    said = capfd.readouterr().err.splitlines()
    assert f"tinykdump: {KVER} is not rehearsed: systemctl failed: no (see x)" in said


ID = "0123456789abcdef"


@dataclass(frozen=True)
class Read:
    """A virtual stick with a dump, that is read back."""

    machine: FakeHost
    dump: Dump
    key: str = ""  # of the image

    def __call__(self) -> str:
        target = self.machine.path(f"{rehearsal.PLACE}/restored")
        wanted = Wanted(ID, kver=KVER, key=self.key)
        return check(self.machine.host, self.dump.path.parents[2], wanted, target)


@pytest.fixture
def dumped(machine: FakeHost, tmp_path: Path, keys: Keyring) -> Read:
    place = tmp_path / "tinykdump/0123456789ab/20260101T000000Z"
    place.parent.mkdir(parents=True)
    made = Dump(place, keys)
    (place / "TEST").write_text(f"{ID}\n99\n")
    machine.path(str(rehearsal.PLACE)).mkdir()
    return Read(machine, made)


def test_a_dump_that_is_not_encrypted_is_read(dumped: Read) -> None:
    dumped.dump.add("dmesg.txt", f"tinykdump: test {ID}\n".encode())
    dumped.dump.add("vmcore.flat", flat([(0, kdump(f"OSRELEASE={KVER}\n".encode()))]))
    assert dumped() == "log and vmcore were read"


def test_of_a_dump_to_another_key_the_sums_are_checked(dumped: Read) -> None:
    dumped.dump.add("dmesg.txt.gpg", b"x")
    dumped.dump.add("vmcore.flat.gpg", flat([(0, b"x")]))
    encrypted = replace(dumped, key="F" * 40)
    assert encrypted().startswith("the sums are right; not decrypted, because the secret key is ")
    (dumped.dump.path / "vmcore.flat.gpg.000").write_bytes(b"changed")
    with pytest.raises(TinykdumpError, match="is damaged: its SHA-256 differs"):
        encrypted()


@pytest.mark.parametrize(
    ("log", "release", "says"),
    [
        ("another", KVER, "the log in the dump does not have the id"),
        (ID, "5.0", f"the vmcore is of 5.0, not of {KVER}"),
        (ID, "", "the vmcore is of an unknown kernel"),
    ],
)
def test_a_dump_of_something_else(dumped: Read, log: str, release: str, says: str) -> None:
    dumped.dump.add("dmesg.txt", f"tinykdump: test {log}\n".encode())
    dumped.dump.add("vmcore.flat", flat([(0, kdump(f"OSRELEASE={release}\n".encode()))]))
    with pytest.raises(TinykdumpError, match=says):
        dumped()


def test_a_dump_without_the_id_or_without_its_memory(dumped: Read) -> None:
    dumped.dump.add("dmesg.txt", f"tinykdump: test {ID}\n".encode())
    with pytest.raises(TinykdumpError, match="has no vmcore"):
        dumped()
    (dumped.dump.path / "TEST").write_text("fedcba9876543210\n99\n")
    with pytest.raises(TinykdumpError, match="does not have the id of this rehearsal"):
        dumped()
    dumped.dump.path.rename(dumped.dump.path.with_suffix(".partial"))
    with pytest.raises(TinykdumpError, match="no complete dump is on the stick"):
        dumped()


def test_a_dump_without_the_log(dumped: Read) -> None:
    """The crash kernel goes on without it, and calls the dump saved."""
    dumped.dump.add("vmcore.flat", flat([(0, kdump(f"OSRELEASE={KVER}\n".encode()))]))
    with pytest.raises(TinykdumpError, match=r"the dump has no vmcore-dmesg\.txt"):
        dumped()
