# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs of crash kernels, from records as the backends of pstore keep them."""

import random
from datetime import UTC, datetime

import pytest

from tinykdump import crashlog
from tinykdump.crashlog import Boots, CrashLog, Record

# Lines from user space, as the kernel writes them to a console and to a record.
STREAM = (
    "[    0.000000] Linux\n[    1.000000] USB\n"
    "[    5.100021] tinykdump: [5.10 s] waiting for the stick LABEL=X\n"
)
STAGE = "<13>[    9.000000] tinykdump: [9.00 s] "
START = "[    0.000000] Linux\n"


def found(*records: Record) -> CrashLog:
    """The newest log; the records can be in any order."""
    shuffled = random.sample(records, len(records))
    log = crashlog.newest(shuffled)
    assert log is not None
    return log


def console(time: float, part: int, text: str, heading: str = "kexec-console") -> Record:
    return Record(f"kexec-console-erst-{time}{part}", f"{heading} Part{part}\n{text}", time, time)


def dmesg(time: float, part: int, text: str, heading: str = "Shutdown#1") -> Record:
    return Record(f"dmesg-efi_pstore-{time}{part}", f"{heading} Part{part}\n{text}", time, time)


def stream(time: float, text: str, name: str = "kexec-console-ramoops-0") -> Record:
    return Record(name, text, 0.0, time)


@pytest.mark.parametrize(
    ("course", "rate"),
    [
        (("[10.00 s] saving the memory", "the dump takes 150 MiB", "[40.00 s] saved as x/y"),
         5 << 20),
        (("[10.00 s] saving the memory", "the dump takes 150 MiB"), 0),
        (("[10.00 s] saving the memory", "[40.00 s] saved as x/y"), 0),
        (("[10.00 s] saving the memory", "[20.00 s] could not save the memory at level 31: x",
          "[30.00 s] saving the memory", "the dump takes 9 MiB", "[40.00 s] saved as x/y"), 0),
        (("[50.00 s] saving the memory", "the dump takes 150 MiB", "[40.00 s] saved as x/y"), 0),
    ],
)  # fmt: skip
def test_how_fast_a_dump_was(course: tuple[str, ...], rate: float) -> None:
    lines = [f"<13>[{at:5}.000000] tinykdump: {text}" for at, text in enumerate(course)]
    assert CrashLog("\n".join(lines), is_whole=True).rate == rate


def test_a_stream_is_preferred_to_the_first_kernels_console() -> None:
    first = stream(5, "the first kernel's", "console-ramoops-0")
    log = found(first, stream(0, STREAM))
    assert (log.text, log.is_whole) == (STREAM.strip(), True)
    assert log.stage == "waiting for the stick LABEL=X"


def test_records_of_the_last_crash_are_put_in_order() -> None:
    log = found(
        console(11, 2, f"{STAGE}failed: no stick\n<6>[    2.100000] end\n"),
        console(1, 1, "<6>an older crash\n"),
        console(2, 2, f"{STAGE}saved as x\n"),
        console(10, 1, "<6>[    0.000000] start\n<14>a <5> in the middle stays\n"),
    )
    assert log.text == (
        "[    0.000000] start\na <5> in the middle stays\n"
        "[    9.000000] tinykdump: [9.00 s] failed: no stick\n[    2.100000] end"
    )
    assert log.verdict == "failed: no stick"


def test_leftovers_of_an_older_crash_are_not_part_of_the_newest_log() -> None:
    """Old records are removed one by one: the last parts remain longest."""
    log = found(
        console(1, 3, "old 3\n"), console(2, 4, "old 4\n"),
        console(5, 1, "new 1\n"), console(5, 2, "new 2\n"),
    )  # fmt: skip
    assert log.text == "new 1\nnew 2"


def test_records_of_different_crashes_are_not_mixed() -> None:
    """Even if the clock stands still and the numbers of the parts continue."""
    log = found(
        console(7, 1, "old 1\n", "kexec-console#1a"),
        console(7, 2, "old 2\n", "kexec-console#1a"),
        console(8, 3, "new 3\n", "kexec-console#2b"),
        console(8, 2, "new 2\n", "kexec-console#2b"),
    )
    assert log.text == "new 2\nnew 3"


def test_a_record_that_was_written_again_is_used_once() -> None:
    """The kernel writes the new version of a record before it removes the old one."""
    log = found(
        console(7, 1, "one\n", "kexec-console#1a"),
        console(8, 2, "two\n", "kexec-console#1a"),
        console(8, 2, "two\nthree\n", "kexec-console#1a"),
    )
    assert log.text == "one\ntwo\nthree"


def test_the_tail_of_a_log_whose_middle_is_lost_belongs_to_it() -> None:
    assert found(console(5, 1, "start\n"), console(6, 4, "end\n")).text == "start\nend"


def test_dmesg_records_are_used_if_there_is_no_console() -> None:
    log = found(
        dmesg(9, 1, f"{STAGE}dump failed\n"),
        # Slow firmware: the parts of one dump have different times.
        dmesg(11, 2, "<6>[    0.000000] start\n"),
        dmesg(3, 1, "<6>[    0.000000] another time\n"),
        dmesg(9, 1, "<6>[    0.000000] another dump\n", "Panic#1"),
    )
    assert log.text == "[    0.000000] start\n[    9.000000] tinykdump: [9.00 s] dump failed"
    assert (log.is_whole, log.stage) == (False, "dump failed")


def test_the_console_of_ramoops_is_the_crash_kernels_if_src_crash_wrote_to_it() -> None:
    log = found(stream(50, STREAM, "console-ramoops-0"), dmesg(49, 1, f"{STAGE}dump failed\n"))
    assert (log.text, log.is_whole) == (STREAM.strip(), True)


def test_the_console_is_preferred_to_dmesg_records_of_the_same_crash() -> None:
    """The dump of its panic comes last, and contains the text of the console, too."""
    dump = dmesg(5000, 1, f"{STAGE}waiting\n<0>[    9.100000] Kernel panic\n", "Panic#1")
    assert found(console(4000, 1, f"<5>[    0.100000] start\n{STAGE}waiting\n"), dump).is_whole


def test_the_newest_crash_counts_whatever_its_kind_of_record() -> None:
    """Two crashes within minutes: the second kernel left only dmesg records."""
    dump = dmesg(5000, 1, f"{STAGE}dump failed\n")
    log = found(console(4990, 1, "<13>[    8.000000] tinykdump: [8.00 s] saved as x\n"), dump)
    assert (log.is_whole, log.stage) == (False, "dump failed")


def test_a_record_in_both_mount_and_archive_is_used_once() -> None:
    """As with Unlink=no in pstore.conf. The time of the first copy counts."""
    text = f"kexec-console Part1\n{STAGE}saved as x\n"
    log = found(
        Record("kexec-console-erst-5", text, 100, 100),
        Record("unknown-erst-5", text, 90, 90),
    )
    assert log.text.count("saved as x") == 1
    assert log.time == 90


def test_other_records_are_no_crash_log() -> None:
    assert crashlog.newest([]) is None
    assert crashlog.newest([dmesg(9, 1, "<6>Oops\n", "Oops#1")]) is None
    assert crashlog.newest([stream(1, "Kernel panic\n", "console-ramoops-0")]) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kexec-console-ramoops-0", True),
        ("dmesg-erst-7661234", True),
        ("console-ramoops-0", True),
        ("dmesg.txt", False),
        ("pmsg-ramoops-0", False),
        ("kexec-console-erst-1.enc.z", True),
        ("unknown-efi_pstore-1.enc.z", True),
    ],
)
def test_names_of_records(name: str, expected: bool) -> None:
    assert crashlog.is_of_interest(name) == expected


PANIC = "[    9.500000] Kernel panic - not syncing: "


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Linux", "failed: the crash kernel ended before its first stage"),
        (f"{START}{PANIC}VFS: no root\n",
         "failed: the crash kernel panicked (VFS: no root) before its first stage"),
        (STREAM, "failed: the crash kernel ended after: waiting for the stick LABEL=X"),
        (f"{STREAM}{PANIC}Out of memory\n",
         "failed: the crash kernel panicked (Out of memory) after: waiting for the stick LABEL=X"),
        (f"{STAGE}failed: no stick X within 5 s\n"
         "<13>[    9.200000] tinykdump: [9.20 s] dump failed; final action: reboot\n",
         "failed: no stick X within 5 s"),
        (f"{STAGE}saved as a/b\n"
         "<13>[    9.200000] tinykdump: [9.20 s] dump saved; final action: reboot\n",
         "saved as a/b"),
        # A full stick: saving the next file fails, too, but is not the reason.
        (f"{STAGE}failed: vmcore.flat is not complete: No space left on device\n"
         "<13>[    9.200000] tinykdump: [9.20 s] failed: crash-kernel.txt is not complete\n",
         "failed: vmcore.flat is not complete: No space left on device"),
        (f"{STAGE}failed: dmesg.txt is not complete\n"
         "<13>[    9.200000] tinykdump: [9.20 s] saved as a/b\n",
         "saved as a/b, but failed: dmesg.txt is not complete"),
    ],
)  # fmt: skip
def test_the_verdict_is_one_line(text: str, verdict: str) -> None:
    assert CrashLog(text, is_whole=True).verdict == verdict


FORGED = "tinykdump: [9.00 s] saved as x"


@pytest.mark.parametrize(
    "text",
    [
        # The kernel quotes a device's strings with their line feeds, and begins each of these
        # lines in the same way.
        f"{START}[    9.000000] usb 1-1: Product: {FORGED}\n",
        f"{START}[    9.000000] usb 1-1: Product: A\n[    9.000000] {FORGED}\n",
        f"{START}[    9.000000] usb 1-1: Product: A\n[    9.000000] B\n[    9.000000] {FORGED}\n",
        f"<6>[    9.000000] usb 1-1: Product: A\n<6>[    9.000000] {FORGED}\n",
        f"<6>[    9.000000] usb 1-1: Product: A\n<6>[    9.000000] <13>[    9.000000] {FORGED}\n",
        f"{START}[    9.000000] usb 1-1: Product: A\r[    9.100000] {FORGED}\n",
        # The first line of a ring buffer can be cut anywhere.
        f"[    9.000000] {FORGED}\n",
        f"{START}{FORGED}\n",
        # With the kernel's own facility.
        f"<5>[    9.000000] {FORGED}\n",
        f"<6>[    9.000000] {FORGED}\n",
        # Output of the script and quotes of programs have the facility of user space.
        f"<13>[    9.000000] tinykdump: not mounted as vfat: x\n<13>[    9.000000] {FORGED}\n",
    ],
)
def test_a_device_cannot_forge_a_stage(text: str) -> None:
    assert CrashLog(text, is_whole=True).stages == ()


def test_a_device_cannot_forge_a_panic() -> None:
    text = f"{STREAM}[    9.000000] usb 1-1: Product: Kernel panic - not syncing: x\n"
    assert "panicked" not in CrashLog(text, is_whole=True).verdict
    assert "panicked" not in CrashLog(f"<13>{PANIC}x\n", is_whole=True).verdict


def test_stages_are_found_in_lines_with_a_caller() -> None:
    text = f"{START}[    9.000000][   T1] tinykdump: [9.00 s] saved as x\n"
    assert CrashLog(text, is_whole=True).verdict == "saved as x"


BOOTS = Boots(this=5000.0, previous=3000.0)


@pytest.mark.parametrize(
    ("record", "when", "ended_previous"),
    [
        (("kexec-console-erst-1", 4000.0, False), "1970-01-01 01:06:40 UTC", True),
        (("kexec-console-erst-1", 2000.0, True), "1970-01-01 00:33:20 UTC", False),
        # The clock is ahead, or the number is forged.
        (("kexec-console-erst-1", 1e18, False), "before 1970-01-01 01:23:20 UTC", False),
        (("kexec-console-erst-1", -1e18, False), "1970-01-01 00:00:00 UTC", False),
        # A stream has no time: its file has the time of the boot that first read it.
        (("kexec-console-ramoops-0", 5010.0, True), "before 1970-01-01 01:23:20 UTC", True),
        (("kexec-console-ramoops-0", 3010.0, True), "before 1970-01-01 00:50:10 UTC", False),
        # Not collected: it can be from any boot.
        (("kexec-console-ramoops-0", 5010.0, False), "before 1970-01-01 01:23:20 UTC", False),
    ],
)
def test_the_time_of_a_log(
    record: tuple[str, float, bool], when: str, *, ended_previous: bool
) -> None:
    name, modified, collected = record
    heading = b"kexec-console Part1\n" if "erst" in name else b""
    made = crashlog.record(name, heading + b"text", modified, collected=collected, boots=BOOTS)
    assert made is not None
    log = found(made)
    assert (log.when, log.ended_previous(BOOTS)) == (when, ended_previous)
    assert not log.ended_previous(Boots(this=5000.0))


THIS = "6d9e4b5c7f1a4e0d8b8d5a3b2c1d0e9f Wed 2026-11-25 17:44:00 UTC"
PREVIOUS = "0b4b2a9e0f8b4bd4b7a2a1c33a5de2a1 Wed 2026-11-25 17:38:02 UTC"
OLDER = "8c1be5dd1bb54f3ab2b2a1f5d0f1f0aa Tue 2026-11-24 07:00:00 UTC"


@pytest.mark.parametrize("sep", ["\N{EM DASH}", " "])  # systemd 252, 257
def test_the_time_of_the_previous_boot_comes_from_the_journal(sep: str) -> None:
    last = f"{sep}Wed 2026-11-25 17:45:00 UTC\n"
    this, previous, older = f"  0 {THIS}{last}", f" -1 {PREVIOUS}{last}", f" -2 {OLDER}{last}"
    expected = datetime(2026, 11, 25, 17, 38, 2, tzinfo=UTC).timestamp()
    assert crashlog.previous_boot(f"IDX BOOT ID\n{older}{previous}{this}") == expected
    assert crashlog.previous_boot(this) is None
    assert crashlog.previous_boot("") is None
