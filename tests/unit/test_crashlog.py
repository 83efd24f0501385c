# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs of crash kernels, from records as the backends of pstore leave them."""

import random

import pytest

from tinykdump import crashlog
from tinykdump.crashlog import CrashLog, Record

STREAM = "[    0.0] Linux\n[    5.1] tinykdump: [5.10 s] waiting for the stick LABEL=X\n"
STAGE = "<5>[9.0] tinykdump: [9.00 s] "


def found(*records: Record) -> CrashLog:
    """The newest log; a backend lists its records in any order."""
    shuffled = random.sample(records, len(records))
    log = crashlog.newest(shuffled)
    assert log is not None
    return log


def console(time: float, part: int, text: str, heading: str = "kexec-console") -> Record:
    return Record(f"kexec-console-erst-{time}{part}", time, f"{heading} Part{part}\n{text}")


def dmesg(time: float, part: int, text: str, heading: str = "Shutdown#1") -> Record:
    return Record(f"dmesg-efi_pstore-{time}{part}", time, f"{heading} Part{part}\n{text}")


def test_a_stream_is_the_log() -> None:
    first = Record("console-ramoops-0", 5, "the first kernel's")
    log = found(first, Record("kexec-console-ramoops-0", 0, STREAM))
    assert (log.text, log.is_whole) == (STREAM.strip(), True)
    assert log.stage == "waiting for the stick LABEL=X"


def test_records_of_the_last_crash_are_put_in_order() -> None:
    log = found(
        console(11, 2, f"{STAGE}failed: no stick\n<6>[2.1] end\n"),
        console(1, 1, "<6>an older crash\n"),
        console(2, 2, f"{STAGE}saved as x\n"),
        console(10, 1, "<6>[0.0] start\n<14>a <5> in the middle stays\n"),
    )
    assert log.text == (
        "[0.0] start\na <5> in the middle stays\n"
        "[9.0] tinykdump: [9.00 s] failed: no stick\n[2.1] end"
    )
    assert log.verdict == "failed: no stick"


def test_what_is_left_of_an_older_crash_is_not_taken_for_the_newest() -> None:
    """Older records give way one by one: their last parts are still there."""
    log = found(
        console(1, 3, "old 3\n"), console(2, 4, "old 4\n"),
        console(5, 1, "new 1\n"), console(5, 2, "new 2\n"),
    )  # fmt: skip
    assert log.text == "new 1\nnew 2"


def test_the_tail_of_a_log_whose_middle_is_lost_belongs_to_it() -> None:
    assert found(console(5, 1, "start\n"), console(6, 4, "end\n")).text == "start\nend"


def test_dmesg_records_stand_in_where_a_kernel_has_no_better() -> None:
    log = found(
        dmesg(9, 1, f"{STAGE}dump failed\n"),
        # Slow firmware: the parts of one dump have different times.
        dmesg(11, 2, "<6>[0.0] start\n"),
        dmesg(3, 1, "<6>[0.0] another time\n"),
        dmesg(9, 1, "<6>[0.0] another dump\n", "Panic#1"),
    )
    assert log.text == "[0.0] start\n[9.0] tinykdump: [9.00 s] dump failed"
    assert (log.is_whole, log.stage) == (False, "dump failed")


def test_the_console_of_ramoops_is_the_crash_kernels_where_it_has_no_zone() -> None:
    log = found(Record("console-ramoops-0", 50, STREAM), dmesg(49, 1, f"{STAGE}dump failed\n"))
    assert (log.text, log.is_whole) == (STREAM.strip(), True)


def test_the_console_comes_before_the_dump_of_the_same_crash_only() -> None:
    dump = dmesg(5000, 1, f"{STAGE}dump failed\n")
    assert found(console(4990, 1, "console\n"), dump).is_whole
    assert not found(console(9, 1, "console of a crash long ago\n"), dump).is_whole


def test_other_records_are_nobodys_crash_log() -> None:
    assert crashlog.newest([]) is None
    assert crashlog.newest([dmesg(9, 1, "<6>Oops\n", "Oops#1")]) is None
    assert crashlog.newest([Record("console-ramoops-0", 1, "Kernel panic\n")]) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kexec-console-ramoops-0", True),
        ("dmesg-erst-7661234", True),
        ("console-ramoops-0", True),
        ("dmesg.txt", False),
        ("pmsg-ramoops-0", False),
        ("kexec-console-erst-1.enc.z", False),
    ],
)
def test_names(name: str, expected: bool) -> None:
    assert crashlog.is_of_interest(name) == expected


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Linux", "failed: the crash kernel ended before its first stage"),
        ("Kernel panic - not syncing: VFS: no root\n",
         "failed: the crash kernel panicked (VFS: no root) before its first stage"),
        (STREAM, "failed: the crash kernel ended after: waiting for the stick LABEL=X"),
        (f"{STREAM}Kernel panic - not syncing: Out of memory\n",
         "failed: the crash kernel panicked (Out of memory) after: waiting for the stick LABEL=X"),
        (f"{STAGE}failed: no stick X within 5 s\n{STAGE}dump failed; final action: reboot\n",
         "failed: no stick X within 5 s"),
        (f"{STAGE}saved as a/b\n{STAGE}dump saved; final action: reboot\n", "saved as a/b"),
    ],
)  # fmt: skip
def test_the_verdict_is_one_line(text: str, verdict: str) -> None:
    assert CrashLog(text, is_whole=True).verdict == verdict
