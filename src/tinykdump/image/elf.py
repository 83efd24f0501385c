# SPDX-License-Identifier: GPL-2.0-or-later
"""What an ELF program needs to run: its loader and its libraries. Pure: no I/O.

A build does not execute the file, so a hostile one can do nothing. This module reads the
dynamic section (DT_NEEDED, DT_RUNPATH, DT_SONAME; System V ABI, chapter 5); libraries.py
searches for libraries as ld.so(8) does, but without LD_LIBRARY_PATH and the cache.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from operator import itemgetter

from elftools.common.exceptions import ELFError
from elftools.construct.core import ConstructError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_ST_INFO_TYPE, ENUM_ST_SHNDX
from elftools.elf.gnuversions import GNUVerNeedSection, GNUVerSymSection
from elftools.elf.hash import ELFHashSection, GNUHashSection
from elftools.elf.sections import Section, SymbolTableSection
from elftools.elf.segments import InterpSegment

from tinykdump.errors import TinykdumpError


@dataclass(frozen=True)
class Symbol:
    """A dynamic symbol that a file needs or a library exports."""

    name: str
    version: str = ""  # symbol version that the file needs; empty: none
    is_data: bool = False
    size: int = 0  # bytes, according to the library


@dataclass(frozen=True)
class Elf:
    """What one ELF file needs to run."""

    machine: str  # EM_X86_64 ...
    bits: int
    interpreter: str  # absolute path of the loader; empty for a static file or a library
    needed: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()  # with $ORIGIN as it is in the file

    @property
    def is_dynamic(self) -> bool:
        """Whether the file needs a loader or libraries."""
        return bool(self.interpreter or self.needed)


# What pyelftools raises for truncated or damaged files, beside its own errors.
BROKEN = (ELFError, ConstructError, ArithmeticError, AssertionError, AttributeError, LookupError,
          OSError, TypeError, ValueError, struct.error)  # fmt: skip

# Bytes of an Elf64_Verneed and of an Elf64_Vernaux (Linux Standard Base, Symbol Versioning).
_VERSION_RECORD = 16

# Bits -> the format of a symbol (elf(5)), and its st_name, st_info and st_shndx.
_SYMBOL = {64: ("IBBHQQ", itemgetter(0, 1, 3)), 32: ("IIIBBH", itemgetter(0, 3, 5))}

# Tags of the dynamic section with a string value, and pyelftools' attribute for it.
_STRING_TAGS = {"DT_NEEDED": "needed", "DT_RUNPATH": "runpath", "DT_RPATH": "rpath"}


@contextmanager
def _whole(name: str) -> Iterator[None]:
    """Turn pyelftools' errors for a damaged file into a TinykdumpError."""
    try:
        yield
    except BROKEN:
        raise TinykdumpError(
            f"{name} is not a complete ELF file", "reinstall its package"
        ) from None


def parse(data: bytes, name: str) -> Elf:
    """Read one file; ``name`` is for messages. Raises TinykdumpError when it is not ELF."""
    interpreter = ""
    found: dict[str, list[str]] = {tag: [] for tag in _STRING_TAGS}
    with _whole(name):
        elf = ELFFile(BytesIO(data))
        for segment in elf.iter_segments():
            if segment["p_offset"] + segment["p_filesz"] > len(data):
                raise ELFError("cut off")
            if isinstance(segment, InterpSegment):
                interpreter = segment.get_interp_name()
            elif isinstance(segment, DynamicSegment):
                for tag in segment.iter_tags():
                    if attribute := _STRING_TAGS.get(tag.entry.d_tag):
                        found[tag.entry.d_tag].append(getattr(tag, attribute))
    paths = found["DT_RUNPATH"] or found["DT_RPATH"]
    runpath = tuple(path for text in paths for path in text.split(":"))
    return Elf(elf["e_machine"], elf.elfclass, interpreter, tuple(found["DT_NEEDED"]), runpath)


def undefined(data: bytes, name: str) -> frozenset[Symbol]:
    """The dynamic symbols that a file needs from libraries, with their versions.

    ``name`` is for messages. Raises TinykdumpError when the file is damaged.
    """
    with _whole(name):
        return _undefined(ELFFile(BytesIO(data)), data)


def _undefined(elf: ELFFile, data: bytes) -> frozenset[Symbol]:
    versions: dict[int, str] = {}
    indices: Sequence[int] = ()
    for section in elf.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            versions |= _version_names(section, len(data) // _VERSION_RECORD)
        elif isinstance(section, GNUVerSymSection):
            indices = [index for (index,) in _rows(elf, section, data, "H")]
    symbols = set()
    for number, (name, kind, section_index) in enumerate(_dynamic_symbols(elf, data)):
        if section_index == ENUM_ST_SHNDX["SHN_UNDEF"] and name:
            # Numbers 0 and 1 mean "local" and "global", and have no version.
            index = indices[number] if indices else 0
            symbols.add(Symbol(name, versions.get(index, "")))
        elif kind == ENUM_ST_INFO_TYPE["STT_OBJECT"]:
            # A program that is not a PIE has copies of a library's data symbols.
            symbols.add(Symbol(name))
    return frozenset(symbols)


def _version_names(section: GNUVerNeedSection, left: int) -> Mapping[int, str]:
    """Number -> symbol version, of at most ``left`` records: a damaged list can be circular."""
    found = {}
    for _, auxiliaries in section.iter_versions():
        for auxiliary in chain([None], auxiliaries):
            if auxiliary:
                found[auxiliary["vna_other"]] = auxiliary.name
            left -= 1
            if left < 0:
                raise ELFError("more versions than fit into the file")
    return found


def exported(data: bytes, names: Iterable[str], name: str) -> Mapping[str, Symbol]:
    """Those of ``names`` that a library exports, by name; ``name`` is for messages.

    Looks them up in DT_GNU_HASH or DT_HASH, as ld.so does, because a library has thousands of
    symbols. Raises TinykdumpError when the library is damaged.
    """
    with _whole(name):
        return _exported(ELFFile(BytesIO(data)), names)


def _exported(elf: ELFFile, names: Iterable[str]) -> Mapping[str, Symbol]:
    tables = (elf.get_section_by_name(section) for section in (".gnu.hash", ".hash"))
    table = next((t for t in tables if isinstance(t, GNUHashSection | ELFHashSection)), None)
    found = {}
    for wanted in names:
        symbol = table.get_symbol(wanted) if table else None
        if symbol is not None and symbol["st_shndx"] != "SHN_UNDEF":
            is_data = symbol["st_info"]["type"] in ("STT_OBJECT", "STT_COMMON")
            found[wanted] = Symbol(wanted, is_data=is_data, size=symbol["st_size"])
    return found


def _dynamic_symbols(elf: ELFFile, data: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, type (STT_*) and section (SHN_*) of each dynamic symbol.

    pyelftools takes 0.1 ms for a symbol, half of the time of a build, so this unpacks the rows of
    the table itself.
    """
    section = elf.get_section_by_name(".dynsym")
    if isinstance(section, SymbolTableSection):
        names = _content(section.stringtable, data)
        form, fields = _SYMBOL[elf.elfclass]
        for name, info, index in map(fields, _rows(elf, section, data, form)):
            yield names[name : names.index(0, name)].decode(), info & 0xF, index


def _rows(elf: ELFFile, section: Section, data: bytes, form: str) -> Iterator[tuple[int, ...]]:
    order = "<" if elf.little_endian else ">"
    return struct.iter_unpack(order + form, _content(section, data))


def _content(section: Section, data: bytes) -> bytes:
    """As in the file: Section.data() would unpack a section that says it is compressed."""
    start = section["sh_offset"]
    return data[start : start + section["sh_size"]]
