# SPDX-License-Identifier: GPL-2.0-or-later
"""pstore, as a directory tree."""

import errno
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.fakehost import FakeHost
from tinykdump import cli, config, pstore, survey
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host

PARAMETERS = "/sys/module/ramoops/parameters"
STREAMS_ONLY = "CONFIG_PSTORE=y\nCONFIG_PSTORE_KEXEC_CONSOLE=y\n"
WITH_TYPE = f"{STREAMS_ONLY}CONFIG_PSTORE_KEXEC_CONSOLE_RECORDS=y\n"


def test_without_a_backend_there_are_no_parameters(fake: FakeHost) -> None:
    assert pstore.parameters(fake.host, "", efi=True) == ()
    fake.write("/sys/module/pstore/parameters/backend", "(null)\n")
    assert pstore.parameters(fake.host, "", efi=True) == ()
    assert pstore.modules(fake.host) == ()


def test_both_kernels_use_the_same_region(fake: FakeHost) -> None:
    fake.write("/sys/module/pstore/parameters/backend", "ramoops\n")
    for name, value in {"mem_address": 805306368, "mem_size": 1048576, "record_size": 0,
                        "kexec_console_size": 65536, "max_reason": -1}.items():  # fmt: skip
        fake.write(f"{PARAMETERS}/{name}", f"{value}\n")
    region = (
        "pstore.backend=ramoops", "printk.time=1",
        "ramoops.mem_address=805306368", "ramoops.mem_size=1048576",
        # Zero is not the default: without it, the dump zones would overlap the console's.
        "ramoops.record_size=0", "ramoops.kexec_console_size=65536", "ramoops.max_reason=-1",
    )  # fmt: skip
    assert pstore.modules(fake.host) == ("ramoops",)
    assert pstore.parameters(fake.host, STREAMS_ONLY, efi=True) == region
    assert pstore.parameters(fake.host, WITH_TYPE, efi=True) == region
    assert pstore.description(fake.host, STREAMS_ONLY, efi=True) == "ramoops"
    assert pstore.parameters(fake.host, "", efi=True) == (
        *region, "printk.always_kmsg_dump=1", "pstore.kmsg_bytes=32768", "ramoops.max_reason=0",
    )  # fmt: skip


def test_a_backend_that_is_disabled_by_default_is_enabled_in_both_kernels(fake: FakeHost) -> None:
    fake.write("/sys/module/pstore/parameters/backend", "efi_pstore\n")
    fake.write("/sys/module/efi_pstore/parameters/pstore_disable", "N\n")
    assert pstore.modules(fake.host) == ("efi_pstore",)
    assert pstore.parameters(fake.host, WITH_TYPE, efi=True) == (
        "pstore.backend=efi_pstore", "printk.time=1", "efi_pstore.pstore_disable=N",
        "pstore.kexec_console=efi",
    )  # fmt: skip


def test_a_built_in_backend_without_parameters(fake: FakeHost) -> None:
    fake.write("/sys/module/pstore/parameters/backend", "erst\n")
    assert pstore.modules(fake.host) == ()
    assert pstore.parameters(fake.host, WITH_TYPE, efi=True) == (
        "pstore.backend=erst", "printk.time=1",
    )  # fmt: skip


def test_the_description_says_what_a_kernel_without_the_type_loses(fake: FakeHost) -> None:
    assert pstore.description(fake.host, WITH_TYPE, efi=True) == ""
    fake.write("/sys/module/pstore/parameters/backend", "erst\n")
    assert pstore.description(fake.host, WITH_TYPE, efi=True) == "erst"
    for kernel_config in ("# CONFIG_PSTORE_KEXEC_CONSOLE is not set\n", STREAMS_ONLY):
        text = pstore.description(fake.host, kernel_config, efi=True)
        assert text.startswith("erst, unless it hangs (no CONFIG_PSTORE_KEXEC_CONSOLE_RECORDS: ")
        assert "printk.always_kmsg_dump" in text
        assert "printk.always_kmsg_dump=1" in pstore.parameters(fake.host, kernel_config, efi=True)
    # The series has nothing for other backends.
    fake.write("/sys/module/pstore/parameters/backend", "nvram\n")
    assert "unless it hangs" in pstore.description(fake.host, WITH_TYPE, efi=True)


def test_the_configuration_keeps_the_log_out_of_efi_variables(fake: FakeHost) -> None:
    fake.write("/sys/module/pstore/parameters/backend", "efi_pstore\n")
    for kernel_config in (WITH_TYPE, ""):
        words = pstore.parameters(fake.host, kernel_config, efi=False)
        assert words == ("efi_pstore.pstore_disable=Y",)
        assert "efi_log" in pstore.description(fake.host, kernel_config, efi=False)
    fake.write("/sys/module/pstore/parameters/backend", "erst\n")
    assert "pstore.backend=erst" in pstore.parameters(fake.host, WITH_TYPE, efi=False)


SWITCH = "/sys/module/efi_pstore/parameters/pstore_disable"


@pytest.fixture
def turned_off(fake: FakeHost) -> FakeHost:
    """A machine with Fedora's kernel: the backend is built in, and told to do nothing."""
    fake.write("/sys/module/pstore/parameters/backend", "(null)\n")
    fake.write(SWITCH, "Y\n")
    fake.path("/sys/firmware/efi/efivars").mkdir(parents=True)
    return fake


def test_status_says_how_efi_pstore_is_turned_on(turned_off: FakeHost) -> None:
    said = pstore.description(turned_off.host, WITH_TYPE, efi=True)
    assert said.startswith("lost: this kernel has pstore in EFI variables turned off (set efi_psto")
    assert pstore.description(turned_off.host, WITH_TYPE, efi=False) == ""
    turned_off.remove("/sys/firmware/efi/efivars")  # it was not started by EFI
    assert pstore.description(turned_off.host, WITH_TYPE, efi=True) == ""


def test_efi_pstore_is_turned_on_once(
    turned_off: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Sequence[str | Path]] = []
    monkeypatch.setattr(pstore, "run", lambda argv, **_: ran.append(argv))
    pstore.turn_on_efi(turned_off.host)
    assert turned_off.path(SWITCH).read_text() == "N\n"  # of two bytes, one was written
    assert ran == [["systemctl", "--no-block", "start", "systemd-pstore.service"]]
    pstore.turn_on_efi(turned_off.host)
    assert len(ran) == 1


def test_another_backend_stays(turned_off: FakeHost) -> None:
    turned_off.write("/sys/module/pstore/parameters/backend", "erst\n")
    pstore.turn_on_efi(turned_off.host)
    assert turned_off.path(SWITCH).read_text() == "Y\n"


def test_a_kernel_that_does_not_turn_it_on(
    turned_off: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Host, "write", refuse)
    with pytest.raises(TinykdumpError, match=r"turned on: Operation not permitted \(add efi_psto"):
        pstore.turn_on_efi(turned_off.host)


MOUNT = "/sys/fs/pstore"
ARCHIVE = "/var/lib/systemd/pstore"
SAVED = "[    1.000000] Linux\n[    9.000000] tinykdump: [9.00 s] saved as x\n"
RECORD = "kexec-console Part1\n<13>[    9.000000] tinykdump: [9.00 s] saved as x\n"


def log(fake: FakeHost, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> str:  # fmt: skip
    """The output of "tinykdump log" for this tree; "" if there is no log."""
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    status = cli.main(["log"])
    shown = capsys.readouterr()
    assert (status == 0) == bool(shown.out), shown
    return shown.out + shown.err if shown.out else ""


def pack(text: str) -> bytes:
    """Compress as pstore does."""
    return zlib.compress(text.encode(), wbits=-15)


def test_the_log_is_found_in_the_archive_of_systemd(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert log(fake, monkeypatch, capsys) == ""
    archive = fake.path(f"{ARCHIVE}/kexec-console-erst-1")
    fake.write(f"{ARCHIVE}/kexec-console-erst-1", "kexec-console Part1\nfrom the archive")
    os.utime(archive, (1000, 1000))
    assert "from the archive" in log(fake, monkeypatch, capsys)
    fake.write(f"{MOUNT}/kexec-console-ramoops-0", "newer")
    assert log(fake, monkeypatch, capsys).startswith("newer\n")
    # The newest log of both directories counts.
    os.utime(fake.path(f"{MOUNT}/kexec-console-ramoops-0"), (10, 10))
    shown = log(fake, monkeypatch, capsys)
    assert shown.startswith("from the archive\n")
    # With its time. Without a journal, it may not be the last crash.
    assert "(1970-01-01 00:16:40 UTC, perhaps not the last crash; " in shown


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("unknown-erst-7", RECORD.encode()),
        # With ERST, a kernel that does not know the type cannot tell that the record is packed.
        ("unknown-erst-7", pack(RECORD)),
        ("unknown-efi_pstore-7.enc.z", pack(RECORD)),
        ("kexec-console-efi_pstore-7.enc.z", pack(RECORD)),
        ("dmesg-efi_pstore-7.enc.z", pack(RECORD.replace("kexec-console", "Panic#1"))),
    ],
)
def test_records_of_a_type_that_the_kernel_does_not_know_are_read(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str, data: bytes,
) -> None:  # fmt: skip
    fake.write(f"{ARCHIVE}/{name}", data)
    assert "; saved as x)" in log(fake, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("unknown-erst-7", b"something else"),
        ("unknown-erst-7", pack("something else\n" + SAVED)),
        ("dmesg-efi_pstore-7.enc.z", b"\0\xff not packed" + SAVED.encode()),
        ("dmesg-efi_pstore-7.enc.z", b""),
        ("unknown-erst-7.enc.z", pack("kexec-console Part1\n" + "A" * (40 << 20))[:200]),
    ],
)
def test_other_records_are_skipped(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str, data: bytes,
) -> None:  # fmt: skip
    fake.write(f"{ARCHIVE}/{name}", data)
    shown = log(fake, monkeypatch, capsys)
    assert "saved as" not in shown
    assert len(shown) < 2 << 20


def test_two_copies_of_a_log_are_shown_once(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (MOUNT, ARCHIVE):
        fake.write(f"{place}/kexec-console-erst-7", RECORD)
        fake.write(f"{place}/kexec-console-erst-8",
                   "kexec-console Part2\n<5>[    9.900000] end\n")  # fmt: skip
        for name in ("kexec-console-erst-7", "kexec-console-erst-8"):
            os.utime(fake.path(f"{place}/{name}"), (1000, 1000))
    shown = log(fake, monkeypatch, capsys)
    assert shown.splitlines()[:2] == [
        "[    9.000000] tinykdump: [9.00 s] saved as x", "[    9.900000] end",
    ]  # fmt: skip


def test_control_characters_are_not_shown(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "[    2.000000] usb 1-1: Product: \x1b]0;owned\x07\x1b[2J\x9b1m\r\x00\u202eA\tB\n"
    fake.write(f"{MOUNT}/kexec-console-ramoops-0", "[    1.000000] Linux\n" + hostile + SAVED)
    shown = log(fake, monkeypatch, capsys)
    assert "Product: ]0;owned[2J1mA\tB\n" in shown
    assert all(c.isprintable() or c in "\n\t" for c in shown)


def test_long_numbers_are_not_parsed(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """int() refuses more than 4300 digits."""
    digits = "9" * 5000
    fake.write(f"{MOUNT}/dmesg-erst-1", f"Panic#{digits} Part1\n")
    fake.write(f"{MOUNT}/dmesg-erst-2", f"Panic#1 Part{digits}\n<{digits}>[{digits}.000000] x\n")
    fake.write(f"{MOUNT}/kexec-console-erst-3", RECORD)
    os.utime(fake.path(f"{MOUNT}/kexec-console-erst-3"), (1 << 33, 1 << 33))
    assert "; saved as x)" in log(fake, monkeypatch, capsys)


def test_files_that_vanish_are_skipped(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """systemd-pstore may move them while tinykdump reads them."""
    fake.write(f"{MOUNT}/kexec-console-erst-1", RECORD)
    fake.write(f"{MOUNT}/kexec-console-erst-2", "kexec-console Part2\n")
    os.mkfifo(fake.path(f"{MOUNT}/dmesg-erst-3"))
    fake.path(f"{MOUNT}/dmesg-erst-4").symlink_to("/etc/passwd")
    walk = Host.walk

    def gone(host: Host, name: str | Path) -> Iterator[tuple[Path, list[str]]]:
        for directory, names in walk(host, name):
            fake.path(f"{MOUNT}/kexec-console-erst-2").unlink(missing_ok=True)
            yield directory, names

    monkeypatch.setattr(Host, "walk", gone)
    assert "; saved as x)" in log(fake, monkeypatch, capsys)


@pytest.mark.parametrize(("previous", "name"), [(500.0, "last crash"), (2000.0, "older crash"),
                                               (None, "older crash")])  # fmt: skip
def test_status_says_whether_it_was_the_last_crash(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, previous: float | None, name: str
) -> None:
    """The journal is a mock: a directory tree cannot have one of several boots."""
    fake.write("/proc/stat", "cpu 1\nbtime 3000\n")
    fake.write(f"{MOUNT}/kexec-console-erst-1", RECORD)
    os.utime(fake.path(f"{MOUNT}/kexec-console-erst-1"), (1000, 1000))
    monkeypatch.setattr(pstore, "_previous_boot", lambda _host: previous)
    found = survey.collect(fake.host, config.resolve([], {}))
    assert found.crash
    assert found.crash.previous_boot == (name == "last crash")
    assert f"\n{name + ':':<14}1970-01-01 00:16:40 UTC: saved as x\n" in found.to_text()
