# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump test on a directory tree: the crash is a file there, and the dump is made by hand."""

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import plugged
from tests.fakehost import FakeHost
from tests.unit.test_manifest import MANIFEST
from tinykdump import cli, dump, mounts, parts, pstore, trial
from tinykdump.errors import TinykdumpError

BOOT = "/proc/sys/kernel/random/boot_id"
SYSRQ = "/proc/sysrq-trigger"
NOTE = str(trial.NOTE)
STICK = "30 27 8:17 / /mnt rw shared:2 - vfat /dev/sdb1 rw\n"


@pytest.fixture
def machine(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """One that is armed, with a stick that is mounted."""
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    monkeypatch.setattr(pstore, "_previous_boot", lambda _host: 500.0)
    fake.write("/run/tinykdump/loaded.json", MANIFEST.to_json())
    fake.write("/sys/kernel/kexec_crash_loaded", "1\n")
    fake.write("/sys/class/rtc/rtc0/since_epoch", "1000\n")
    fake.write(BOOT, "first\n")
    fake.write(SYSRQ)
    fake.write("/dev/kmsg")
    plugged.plug(fake, "vfat")
    fake.write("/proc/self/mountinfo", STICK)
    fake.path("/mnt").mkdir()
    return fake


def crashed(machine: FakeHost, monkeypatch: pytest.MonkeyPatch) -> str:
    """Test the machine, as if it crashed and booted again; returns the id of the test."""
    kept: list[bytes] = []
    monkeypatch.setattr(os, "sync", lambda: kept.append(machine.path(NOTE).read_bytes()))
    assert cli.main(["test", "--yes"]) == 1  # a file does not crash
    assert machine.path(SYSRQ).read_text() == "c"
    (note,) = kept
    machine.write(NOTE, note, 0o600)
    machine.write(BOOT, "second\n")
    said = machine.path("/dev/kmsg").read_text()
    number = str(json.loads(note)["trial"]["id"])
    assert said == f"<5>tinykdump: test {number}\n"
    return number


def saved(machine: FakeHost, text: str, name: str = "20260101T000000Z", top: str = "/mnt") -> str:
    """A dump on the stick with that file TEST; returns its name on the stick.

    The machine may have been called otherwise before the crash.
    """
    place = f"{dump.TOP}/0123456789ab/{name}"
    machine.write(f"{top}/{place}/TEST", text)
    return place


def logged(machine: FakeHost, *stages: str, at: int = 1000) -> None:
    """The record of a crash kernel in pstore."""
    lines = (f"<12>[    {n}.000000] tinykdump: [{n}.00 s] {said}" for n, said in enumerate(stages))
    file = f"/var/lib/systemd/pstore/{at}/kexec-console-erst-{at}"
    machine.write(file, "\n".join([f"kexec-console#{at:x} Part1", *lines, ""]))
    os.utime(machine.path(file), (at, at))


def status(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capfd.readouterr()
    cli.main(["status", "--json"])
    return dict(json.loads(capfd.readouterr().out))


def about_tests(found: dict[str, Any]) -> list[str]:
    return [each for each in found["problems"] if "the test of" in each]


def test_a_kernel_that_does_not_crash(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    """The note is gone then."""
    assert cli.main(["test", "--yes"]) == 1
    out, err = capfd.readouterr()
    assert err == "tinykdump: the kernel did not crash (see dmesg)\n"
    assert "This machine crashes at once" in out and "a dump to /dev/sdb1. It then reboots" in out
    assert not machine.path(NOTE).exists()


def test_the_note_is_for_root_only(machine: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    crashed(machine, monkeypatch)
    machine.path(NOTE).unlink()
    modes: list[int] = []
    monkeypatch.setattr(os, "sync", lambda: modes.append(machine.path(NOTE).stat().st_mode))
    cli.main(["test", "--yes"])
    assert [mode & 0o777 for mode in modes] == [0o600]


def test_it_came_out(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And is not looked for again, even if the stick is gone."""
    number = crashed(machine, monkeypatch)
    saved(machine, "0123456789abcdef\n1030\n", "20260102T000000Z")
    place = saved(machine, f"{number}\n1044\n")
    found = status(capfd)
    assert found["test"]["came_out"] is True
    assert (found["test"]["id"], found["test"]["seconds"]) == (number, 44)
    assert about_tests(found) == []
    machine.write("/proc/self/mountinfo", "")
    machine.remove("/sys/class/block")
    machine.remove("/dev/disk")
    assert status(capfd)["test"] == found["test"]
    cli.main(["status"])
    assert f": came out 44 s after the crash: saved as {place}\n" in capfd.readouterr().out


@pytest.mark.parametrize("end", ["999", "99999999", ""])
def test_a_clock_that_was_changed_tells_no_time(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], end: str
) -> None:
    saved(machine, f"{crashed(machine, monkeypatch)}\n" + f"{end}\n" * bool(end))
    found = status(capfd)["test"]
    assert (found["came_out"], found["seconds"]) == (True, None)


def test_a_dump_that_is_not_complete(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    saved(machine, f"{crashed(machine, monkeypatch)}\n", "20260101T000000Z.partial")
    found = status(capfd)
    assert found["test"]["came_out"] is False
    (said,) = about_tests(found)
    assert said.endswith(" did not come out: the dump is not complete (see tinykdump log, and run "
                         "tinykdump test again)")  # fmt: skip
    assert cli.main(["status", "--check"]) == 1


def test_another_stick_does_not_say_that_nothing_came_out(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """But if it has the id, that is what became of the test."""
    number = crashed(machine, monkeypatch)
    (machine.path("/dev/sdb1")).write_bytes(
        plugged.made(machine.path("/other"), "vfat").read_bytes()
    )
    assert status(capfd)["test"]["came_out"] is None
    saved(machine, f"{number}\n1044\n")
    assert status(capfd)["test"]["came_out"] is True


def test_no_dump_has_its_id(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a file that is too long nor a link is one."""
    number = crashed(machine, monkeypatch)
    place = saved(machine, f"{number}\n1044\n" + "x" * 100)
    other = place.replace("20260101", "20260102")
    machine.write("/elsewhere", f"{number}\n1044\n")
    machine.link(f"/mnt/{other}/TEST", str(machine.path("/elsewhere")))
    found = status(capfd)
    assert found["test"]["came_out"] is False
    assert "no dump on the stick has its id" in about_tests(found)[0]


def unplug(machine: FakeHost) -> None:
    machine.write("/proc/self/mountinfo", "")
    machine.remove("/sys/class/block")
    machine.remove("/dev/disk")


def test_without_the_stick_it_is_not_known(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    crashed(machine, monkeypatch)
    unplug(machine)
    found = status(capfd)
    assert found["test"]["came_out"] is None
    (said,) = about_tests(found)
    assert said.endswith(" came out is not known (plug in its stick and run tinykdump status)")
    capfd.readouterr()
    cli.main(["status"])
    assert ": not known yet\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("stage", "came_out", "result"),
    [
        ("saved as tinykdump/x", True, "saved as tinykdump/x, as the crash kernel's log says"),
        ("failed: the stick is gone", False, "failed: the stick is gone"),
    ],
)
def test_without_the_stick_the_log_tells(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    stage: str, result: str, *, came_out: bool,
) -> None:  # fmt: skip
    number = crashed(machine, monkeypatch)
    logged(machine, f"test {number}", stage)
    unplug(machine)
    found = status(capfd)["test"]
    assert (found["came_out"], found["result"]) == (came_out, result)


@pytest.mark.parametrize(("previous", "known"), [(1500.0, True), (3e9, False), (None, False)])
def test_the_log_of_a_crash_kernel_without_a_stick(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    previous: float | None, *, known: bool,
) -> None:  # fmt: skip
    """It has no id, and counts if it ended the boot of the test: it is of no earlier crash."""
    crashed(machine, monkeypatch)
    logged(machine, "failed: no stick LABEL=TINYKDUMP within 60 s", at=2_000)
    monkeypatch.setattr(pstore, "_previous_boot", lambda _host: previous)
    unplug(machine)
    assert (status(capfd)["test"]["came_out"] is False) == known


def test_a_stick_that_is_not_mounted_is_mounted_for_a_moment(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A tree cannot be mounted: what would be there is in a directory."""
    place = saved(machine, f"{crashed(machine, monkeypatch)}\n1044\n", top="/unmounted")
    machine.write("/proc/self/mountinfo", "")
    asked: list[tuple[Path, str, bool]] = []

    @contextmanager
    def mounted(
        _host: object, device: Path, kind: str, *, below: Path, read_only: bool
    ) -> Iterator[Path]:
        asked.append((device, kind, read_only))
        assert below == Path("/run/tinykdump")
        yield machine.path("/unmounted")

    monkeypatch.setattr(mounts, "mounted", mounted)
    assert status(capfd)["test"]["result"] == f"saved as {place}"
    status(capfd)
    assert asked == [(Path("/dev/sdb1"), "vfat", True)]


@pytest.mark.parametrize("kind", ["vfat", "ext4"])
def test_a_stick_that_cannot_be_mounted_does_not_hide_the_log(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    """Nor another stick; if nothing tells, its error is said."""
    number = crashed(machine, monkeypatch)
    machine.write("/proc/self/mountinfo", "")
    plugged.plug(machine, kind, "sda1")
    failure = TinykdumpError("mount failed: bad superblock", "check the stick")
    place = ""

    @contextmanager
    def mounted(_host: object, device: Path, *_: object, **__: object) -> Iterator[Path]:
        if device == Path("/dev/sda1") or not place:
            raise failure
        yield machine.path("/unmounted")

    monkeypatch.setattr(mounts, "mounted", mounted)
    cli.main(["status"])
    assert f"tinykdump: {failure.message} ({failure.hint})" in capfd.readouterr().err
    assert status(capfd)["test"]["came_out"] is None
    if kind == "vfat":
        logged(machine, f"test {number}", "failed: cannot mount /dev/sda1")
        assert status(capfd)["test"]["result"] == "failed: cannot mount /dev/sda1"
    else:
        place = saved(machine, f"{number}\n1044\n", top="/unmounted")
        assert status(capfd)["test"]["result"] == f"saved as {place}"


REFUSED: dict[str, tuple[Callable[[FakeHost], object], str]] = {
    "not armed": (
        lambda fake: fake.write("/sys/kernel/kexec_crash_loaded", "0\n"),
        "this machine is not armed (tinykdump status says what to do)",
    ),
    "no stick": (
        unplug,
        "no stick with LABEL=TINYKDUMP is plugged in (plug it in, or make one with tinykdump "
        "prepare)",
    ),
    "write-protected": (
        lambda fake: fake.path("/sys/class/block/sdb1/ro").write_text("1\n"),
        "/dev/sdb1 is write-protected (move its switch, or use another stick)",
    ),
    "another file system": (
        lambda fake: fake.write(
            "/run/tinykdump/loaded.json", replace(MANIFEST, filesystems=("xfs",)).to_json()
        ),
        "/dev/sdb1 has vfat, but the crash kernel mounts only xfs (run tinykdump -l, which adds it "
        "if filesystems = auto, or format the stick with tinykdump prepare)",
    ),
    "no sysrq": (
        lambda fake: fake.remove(SYSRQ),
        "there is no /proc/sysrq-trigger (run a kernel with CONFIG_MAGIC_SYSRQ)",
    ),
    "no log": (
        lambda fake: fake.write("/proc/sys/kernel/printk_devkmsg", "off\n"),
        "this kernel lets no program write to its log (remove printk.devkmsg=off from the kernel "
        "command line)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(machine: FakeHost, capfd: pytest.CaptureFixture[str], case: str) -> None:
    """One line, no crash, no note."""
    prepare, says = REFUSED[case]
    prepare(machine)
    assert cli.main(["test", "--yes"]) == 1
    assert capfd.readouterr().err == f"tinykdump: {says}\n"
    assert not machine.path(NOTE).exists()
    assert machine.path("/dev/kmsg").read_text() == ""


class Terminal(io.StringIO):
    """Standard input that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("case", ["unloaded", "pulled out"])
def test_what_happens_while_it_asks(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Without a crash kernel or a stick, a crash would be for nothing."""

    class Slow(Terminal):
        def readline(self, *_: Any) -> str:  # type: ignore[override]  # bytes, says its first base
            if case == "unloaded":
                machine.write("/sys/kernel/kexec_crash_loaded", "0\n")
            else:
                machine.remove("/sys/class/block")
                machine.remove("/dev/disk")
            return "crash\n"

    monkeypatch.setattr("sys.stdin", Slow())
    assert cli.main(["test"]) == 1
    says = {"unloaded": "this machine is not armed (", "pulled out": "no stick with LABEL="}
    assert capfd.readouterr().err.startswith(f"tinykdump: {says[case]}")
    assert machine.path(SYSRQ).read_text() == ""


def test_it_asks(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("crash\n"))
    assert cli.main(["test"]) == 1
    says = "tinykdump: nobody can be asked: there is no terminal (add --yes)\n"
    assert capfd.readouterr().err == says
    monkeypatch.setattr("sys.stdin", Terminal("yes\n"))
    assert cli.main(["test"]) == 1
    assert capfd.readouterr().err == "tinykdump: nothing was changed (type crash to go on)\n"
    assert machine.path(SYSRQ).read_text() == ""
    monkeypatch.setattr("sys.stdin", Terminal("crash\n"))
    assert cli.main(["test"]) == 1
    assert machine.path(SYSRQ).read_text() == "c"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"trial": 3}', '{"trial": {"id": 1}}'])
def test_a_note_that_cannot_be_read_counts_as_none(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    machine.write(NOTE, text)
    assert status(capfd)["test"] is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0123456789abcdef\n", ("0123456789abcdef", None)),
        ("0123456789abcdef\n12\n", ("0123456789abcdef", 12)),
        ("0123456789abcdeF\n12\n", None), ("0123456789abcdef", None), ("", None),
        ("0123456789abcdef\n-1\n", None), ("0123456789abcdef\n1234567890123\n", None),
    ],
)  # fmt: skip
def test_the_file_of_a_test(tmp_path: Path, text: str, says: tuple[str, int | None] | None) -> None:
    (tmp_path / "TEST").write_text(text)
    assert parts.test(tmp_path) == says
