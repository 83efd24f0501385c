# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs of crash kernels, from records as the backends of pstore leave them."""

from tinykdump import crashlog
from tinykdump.crashlog import Record

STREAM = "[    0.0] Linux\n[    5.1] tinykdump: [5.10 s] waiting for the stick LABEL=X\n"


def test_a_stream_is_the_log() -> None:
    console = Record("console-ramoops-0", 5, "the first kernel's")
    found = crashlog.newest([console, Record("kexec-console-ramoops-0", 0, STREAM)])
    assert found is not None
    assert (found.text, found.is_whole) == (STREAM.strip(), True)
    assert found.stage == "waiting for the stick LABEL=X"


def test_records_of_the_last_crash_are_put_in_order() -> None:
    def part(number: int, time: float, text: str) -> Record:
        return Record(
            f"kexec-console-efi-{time}{number}", time, f"kexec-console Part{number}\n{text}"
        )

    found = crashlog.newest(
        [
            part(2, 11, "<5>[2.0] tinykdump: [2.0 s] failed: no stick\n<6>[2.1] end\n"),
            part(1, 1, "<6>an older crash\n"),
            part(2, 2, "<5>[9.0] tinykdump: [9.0 s] saved\n"),
            part(1, 10, "<6>[0.0] start\n"),
        ]
    )
    assert found is not None
    assert found.text == "[0.0] start\n[2.0] tinykdump: [2.0 s] failed: no stick\n[2.1] end"
    assert found.stage == "failed: no stick"


def test_dmesg_records_stand_in_where_a_kernel_has_no_better() -> None:
    found = crashlog.newest(
        [
            Record("dmesg-efi-1", 9, "Restart#1 Part1\n<5>[9.0] tinykdump: [9.00 s] dump failed\n"),
            Record("dmesg-efi-2", 9, "Restart#1 Part2\n<6>[0.0] start\n"),
            Record("dmesg-efi-3", 3, "Panic#1 Part1\n<6>[0.0] another time\n"),
        ]
    )
    assert found is not None
    assert found.text == "[0.0] start\n[9.0] tinykdump: [9.00 s] dump failed"
    assert (found.is_whole, found.stage) == (False, "dump failed")


def test_other_records_are_nobodys_crash_log() -> None:
    assert crashlog.newest([]) is None
    assert crashlog.newest([Record("dmesg-efi-1", 9, "Panic#1 Part1\n<6>Oops\n")]) is None


def test_a_log_without_a_stage() -> None:
    found = crashlog.newest([Record("kexec-console-ramoops-0", 0, "[0.0] Linux\n")])
    assert found is not None
    assert found.stage == ""
