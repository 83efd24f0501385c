# SPDX-License-Identifier: GPL-2.0-or-later
"""Placeholders, loaded by the real ld.so and by programs that are linked with the originals."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile

from tests import fakehost
from tests.fakehost import FakeHost
from tinykdump.image import elf, libraries, placeholder, programs
from tinykdump.image.elf import Symbol
from tinykdump.image.placeholder import shared_object

SYMBOLS = [
    Symbol("plain"),
    Symbol("versioned", "FAKE_1.0"),
    Symbol("versioned", "FAKE_2.0"),
    Symbol("table", "FAKE_1.0", is_data=True, size=4000),
    Symbol("number", is_data=True, size=4),
]
MACHINE = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}[os.uname().machine]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "libfake.so.1"
    path.write_bytes(shared_object(MACHINE, "libfake.so.1", SYMBOLS))
    return path


def test_the_placeholder_loads_and_its_symbols_are_found(library: Path) -> None:
    loaded = ctypes.CDLL(str(library))
    for name in ("plain", "table", "number"):
        assert ctypes.cast(getattr(loaded, name), ctypes.c_void_p).value
    assert not hasattr(loaded, "other")
    assert bytes((ctypes.c_char * 4000).in_dll(loaded, "table")) == bytes(4000)
    number = ctypes.c_int.in_dll(loaded, "number")
    number.value = 3  # data is writable, as copy relocations require
    assert ctypes.c_int.in_dll(loaded, "number").value == 3


def test_versions_are_found_by_dlvsym(library: Path) -> None:
    dlvsym = ctypes.CDLL(None).dlvsym
    dlvsym.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(ctypes.CDLL(str(library))._handle)
    assert dlvsym(handle, b"versioned", b"FAKE_1.0")
    assert dlvsym(handle, b"versioned", b"FAKE_2.0")
    assert not dlvsym(handle, b"versioned", b"FAKE_3.0")
    assert not dlvsym(handle, b"table", b"FAKE_2.0")


def test_a_call_traps(library: Path) -> None:
    code = f"import ctypes; ctypes.CDLL({str(library)!r}).plain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGILL


@pytest.mark.parametrize("machine", ["EM_X86_64", "EM_AARCH64"])
def test_pyelftools_reads_the_placeholder(tmp_path: Path, machine: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(shared_object(machine, "libfake.so.1", SYMBOLS))
    with path.open("rb") as handle:
        read = ELFFile(handle)
        assert (read["e_machine"], read["e_type"]) == (machine, "ET_DYN")
        segments = [(s["p_type"], s["p_flags"]) for s in read.iter_segments()]
        dynamic = next(s for s in read.iter_segments() if isinstance(s, DynamicSegment))
        assert [vars(tag)["soname"] for tag in dynamic.iter_tags("DT_SONAME")] == ["libfake.so.1"]
    assert ("PT_LOAD", 7) not in segments, "nothing is writable and executable"
    assert ("PT_GNU_STACK", 6) in segments
    facts = elf.parse(path.read_bytes(), "x")
    assert (facts.machine, facts.bits, facts.needed) == (machine, 64, ())


def test_the_same_symbols_give_the_same_bytes() -> None:
    made = [shared_object(MACHINE, "a.so.1", s) for s in (SYMBOLS, SYMBOLS[::-1], SYMBOLS * 2)]
    assert made[0] == made[1] == made[2]
    assert shared_object(MACHINE, "a.so.1", [])


@pytest.mark.parametrize(
    ("name", "value"), [("", 0), ("printf", 0x077905A6), ("exit", 0x0006CF04), ("a" * 40, 0)]
)
def test_elf_hash(name: str, value: int) -> None:
    found = placeholder.elf_hash(name)
    assert found < 1 << 28
    assert found == value or len(name) == 40


def test_real_programs_start_with_placeholders(
    fake_with_programs: FakeHost, tmp_path: Path
) -> None:
    """As in the image: all libraries in one directory, the unused ones as placeholders."""
    host = fake_with_programs.host
    used = [programs.program(host, name, "") for name in ("gpg", "makedumpfile")]
    entries = libraries.libraries(host, used)
    for entry in entries:
        (tmp_path / Path(entry.path).name).write_bytes(entry.content)
    small = {Path(e.path).name for e in entries if len(e.content) < len(host.read(e.source))}
    needed = {path.name for user in used for path in fakehost.libraries_of(user.path)}
    expected = {name for name in needed if placeholder.is_unused(name)}
    assert expected, "neither program is linked with an unused library"
    assert small == expected
    assert {Path(entry.path).name for entry in entries} <= needed

    loader = next(e for e in entries if not e.path.startswith("/lib/"))
    start = tmp_path / Path(loader.path).name
    start.chmod(0o755)
    for user, words in zip(used, (["--version"], ["-v"]), strict=True):
        # LD_BIND_NOW: look up every symbol of the programs at the start.
        done = subprocess.run(
            [start, "--library-path", tmp_path, user.path, *words],
            env={"LD_BIND_NOW": "1"}, capture_output=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
