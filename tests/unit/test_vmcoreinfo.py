# SPDX-License-Identifier: GPL-2.0-or-later
"""vmcoreinfo in vmcores of both formats, and in forged ones."""

import io
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinykdump import vmcoreinfo
from tinykdump.vmcoreinfo import Info, Read, find, parse

TEXT = b"""OSRELEASE=6.12.1+deb13-amd64
BUILD-ID=b1d7a9114053a488ef493f85f85e9fc75ba9f632
PAGESIZE=4096
SYMBOL(prb)=ffffffffaae5c380
NUMBER(VMALLOC_START)=0xff897d7780000000
NUMBER(phys_base)=-117440512
"""


def reading(content: bytes) -> Read:
    file = io.BytesIO(content)

    def read(at: int, size: int) -> bytes:
        file.seek(at)
        return file.read(size)

    return read


def kdump(text: bytes, place: int = 8192, size: int | None = None) -> bytes:
    """The header of makedumpfile's format, with vmcoreinfo at that offset."""
    header = b"KDUMP   ".ljust(428, b"\0") + struct.pack("<i", 4096)
    sub = struct.pack("<32xqQ", place, len(text) if size is None else size)
    return (header.ljust(4096, b"\0") + sub).ljust(8192, b"\0") + text


def elf(text: bytes, *, notes: bytes | None = None) -> bytes:
    """An ELF core with the notes that the kernel writes into /proc/vmcore."""
    if notes is None:
        cpu = struct.pack("<III", 5, 3, 1) + b"CORE\0\0\0\0" + b"abc\0"
        notes = cpu + struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text
    start = b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack("<Q14xHH", 64, 56, 2)
    table = struct.pack("<I4xQ16xQ16x", 1, 4096, 10) + struct.pack("<I4xQ16xQ16x", 4, 512,
                                                                   len(notes))  # fmt: skip
    return (start.ljust(64, b"\0") + table).ljust(512, b"\0") + notes


@pytest.mark.parametrize("core", [kdump(TEXT), elf(TEXT)], ids=["kdump", "elf"])
def test_formats(core: bytes) -> None:
    info = find(reading(core))
    assert info is not None
    assert info.release == "6.12.1+deb13-amd64"
    assert info.build_id == "b1d7a9114053a488ef493f85f85e9fc75ba9f632"
    assert info.number("PAGESIZE") == 4096
    assert info.number("SYMBOL(prb)") == 0xFFFFFFFFAAE5C380
    assert info.number("NUMBER(VMALLOC_START)") == 0xFF897D7780000000
    assert info.number("NUMBER(phys_base)") == -117440512
    assert info.number("SYMBOL(nothing)") is None


@pytest.mark.parametrize(
    "core",
    [b"", b"x" * 9000, b"KDUMP   ", kdump(b""), kdump(TEXT, place=-1), kdump(TEXT, place=1 << 62),
     kdump(TEXT, place=(1 << 63) - 1),
     kdump(TEXT)[:4100], elf(TEXT)[:60], elf(b"", notes=b""), elf(b"", notes=b"\xff" * 100),
     elf(TEXT).replace(b"VMCOREINFO", b"VMCOREINFX")],
)  # fmt: skip
def test_none(core: bytes, tmp_path: Path) -> None:
    """Also read from a file, as restore does."""
    assert find(reading(core)) is None
    (tmp_path / "vmcore").write_bytes(core)
    with (tmp_path / "vmcore").open("rb") as file:
        assert find(lambda at, size: os.pread(file.fileno(), size, at)) is None


def test_no_more_than_its_limit_is_read() -> None:
    sizes: list[int] = []
    read = reading(kdump(TEXT, size=1 << 60))

    def count(at: int, size: int) -> bytes:
        sizes.append(size)
        return read(at, size)

    assert find(count) is not None
    assert max(sizes) <= 1 << 16


@pytest.mark.parametrize(
    "value", ["", "../../x", "6.1\x1b[2J", "$(reboot)", "a b", "6" * 65, "-x", "6.1\u0661"]
)
def test_invalid_values(value: str) -> None:
    """They are printed, and are part of paths and commands."""
    info = Info({"OSRELEASE": value, "BUILD-ID": value, "NUMBER(x)": value, "SYMBOL(x)": value})
    assert (info.release, info.build_id) == ("", "")


@given(st.binary(max_size=300))
def test_any_text(text: bytes) -> None:
    info = parse(text)
    for name in info.values:
        info.number(name)
    find(reading(kdump(text)))
    find(reading(elf(b"", notes=text)))
    find(reading(b"KDUMP   " + text))
    find(reading(vmcoreinfo._ELF + text))
