# SPDX-License-Identifier: GPL-2.0-or-later
"""Damaged libraries: every function reports them in one line that names the file."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import fakehost
from tests.fakehost import FakeHost
from tinykdump import config
from tinykdump.errors import TinykdumpError
from tinykdump.image import elf, programs

# A small library with everything that is read: versions, symbols, GNU hash table.
LIBRARY = next(
    path for path in fakehost.libraries_of(fakehost.real("gpg")) if path.name.startswith("libbz2.")
).read_bytes()
# The offset of its section headers (elf(5), e_shoff).
SECTIONS = struct.unpack_from("<Q", LIBRARY, 0x28)[0]


def read(data: bytes) -> bool:
    """Whether it can be read. Any exception but TinykdumpError fails the test."""
    try:
        elf.parse(data, "libx.so")
        elf.undefined(data, "libx.so")
        elf.exported(data, ["BZ2_bzCompress", "other"], "libx.so")
    except TinykdumpError as error:
        assert str(error).startswith("libx.so is not a complete ELF file (reinstall its package")
        return False
    return True


def test_an_undamaged_library() -> None:
    assert read(LIBRARY)
    assert elf.exported(LIBRARY, ["BZ2_bzCompress", "other"], "").keys() == {"BZ2_bzCompress"}
    assert any(symbol.version for symbol in elf.undefined(LIBRARY, ""))


@pytest.mark.parametrize("size", [0, 4, 64, len(LIBRARY) // 2, SECTIONS, len(LIBRARY) - 1])
def test_a_library_that_is_cut_off(size: int) -> None:
    assert not read(LIBRARY[:size])


@given(st.lists(st.tuples(st.integers(SECTIONS, len(LIBRARY) - 1), st.integers(0, 255)),
                min_size=1, max_size=20))  # fmt: skip
def test_random_section_headers(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(LIBRARY)
    for place, value in changes:
        damaged[place] = value
    read(bytes(damaged))


def header_of(data: bytearray, kind: int) -> int:
    """The offset of the header of the section of that type."""
    (count,) = struct.unpack_from("<H", data, 0x3C)
    places = range(int.from_bytes(data[0x28:0x30], "little"), len(data), 64)[:count]
    return next(at for at in places if struct.unpack_from("<I", data, at + 4)[0] == kind)


def test_a_circular_list_of_versions() -> None:
    """sh_info is the largest 32-bit number, and the first record is its own successor."""
    damaged = bytearray(LIBRARY)
    header = header_of(damaged, 0x6FFFFFFE)  # SHT_GNU_verneed
    struct.pack_into("<I", damaged, header + 0x2C, 0xFFFFFFFF)
    (offset,) = struct.unpack_from("<Q", damaged, header + 0x18)
    struct.pack_into("<I", damaged, offset + 12, 0)
    assert not read(bytes(damaged))


def hash_without_buckets(damaged: bytearray) -> None:
    (offset,) = struct.unpack_from("<Q", damaged, header_of(damaged, 0x6FFFFFF6) + 0x18)
    struct.pack_into("<I", damaged, offset, 0)


def versions_beyond_the_end(damaged: bytearray) -> None:
    struct.pack_into("<Q", damaged, header_of(damaged, 0x6FFFFFFE) + 0x18, len(damaged))


@pytest.mark.parametrize(
    ("name", "damage"),
    [("libreadline.so", hash_without_buckets), ("/usr/bin/gpg", versions_beyond_the_end)],
)
def test_a_build_with_a_damaged_file_is_an_error(
    fake_with_programs: FakeHost, name: str, damage: Callable[[bytearray], None]
) -> None:
    """A library that becomes a placeholder, and a program that uses its symbols."""
    gpg = fakehost.real("gpg")
    path = next(path for path in (*fakehost.libraries_of(gpg), gpg) if name in str(path))
    damaged = bytearray(path.read_bytes())
    damage(damaged)
    fake_with_programs.write(str(path), bytes(damaged), 0o755)
    chosen = config.resolve([], {})
    with pytest.raises(TinykdumpError, match=f"{name}.* is not a complete ELF file .reinstall"):
        programs.userland(fake_with_programs.host, chosen, encrypt=True)
