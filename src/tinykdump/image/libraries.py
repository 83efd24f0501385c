# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the loader and the libraries that the image's programs need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import elf, entries, placeholder
from tinykdump.image.entries import Entry

# The default directories of ld.so, of all distributions.
_DEFAULT = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")

# How deep files of ld.so.conf may include each other; distributions use one level.
_INCLUDES = 8


@dataclass(frozen=True)
class Program:
    """A program of the image."""

    path: Path  # absolute, on the host
    data: bytes
    facts: elf.Elf


def library_path(host: Host) -> tuple[Path, ...]:
    """The directories of ld.so.conf(5), then the default ones, without those that do not exist."""
    found: list[Path] = []

    def add_file(path: Path, depth: int = 0) -> None:
        if depth > _INCLUDES:
            raise TinykdumpError(f"{path} includes itself", "correct /etc/ld.so.conf")
        for line in (host.text(path) or "").splitlines():
            words = line.split("#", 1)[0].split()
            if len(words) == 2 and words[0] == "include":
                pattern = path.parent / words[1]
                for included in host.children(pattern.parent):
                    if included.match(pattern.name):
                        add_file(included, depth + 1)
            elif words:
                found.append(Path(words[0]))

    add_file(Path("/etc/ld.so.conf"))
    directories = [*found, *map(Path, _DEFAULT)]
    return tuple(path for path in dict.fromkeys(directories) if host.exists(path))


def libraries(host: Host, programs: Sequence[Program]) -> tuple[Entry, ...]:
    """The loaders and libraries that ``programs`` need, as entries of the image.

    Libraries go to /lib, which is in the crash side's LD_LIBRARY_PATH. A library that no dump
    uses becomes a placeholder. Raises TinykdumpError when one is not found.
    """
    loaders = {user.facts.interpreter for user in programs} - {""}
    found = _closure(host, programs, {Path(loader).name for loader in loaders})
    placed = [
        entries.file(loader, host.read(loader), source=loader, mode=0o755)
        for loader in sorted(loaders)
    ]
    users = (*programs, *found.values())
    for name, library in found.items():
        data = _placeholder(name, library, users) if _is_unused(name, library) else library.data
        placed.append(entries.file(f"/lib/{name}", data, source=str(library.path), mode=0o755))
    return tuple(placed)


def _closure(host: Host, programs: Sequence[Program], loaders: set[str]) -> Mapping[str, Program]:
    """Library name -> library: what programs and used libraries need, in turn."""
    default = library_path(host)
    found: dict[str, Program] = {}
    todo = [(name, user) for user in programs for name in user.facts.needed]
    while todo:
        name, user = todo.pop()
        if name in found or name in loaders:  # the loader has its own path in the image
            continue
        library = found[name] = _find(host, name, user, default)
        if not _is_unused(name, library):
            todo += [(needed, library) for needed in library.facts.needed]
    return found


def _is_unused(name: str, library: Program) -> bool:
    return placeholder.is_unused(name) and placeholder.can_make(library.facts.machine)


def _placeholder(name: str, library: Program, users: Sequence[Program]) -> bytes:
    """A placeholder for a library, with only the symbols that its users need."""
    wanted = frozenset[elf.Symbol]().union(
        *(elf.undefined(user.data, str(user.path)) for user in users if name in user.facts.needed)
    )
    offered = elf.exported(library.data, {symbol.name for symbol in wanted}, str(library.path))
    symbols = [
        replace(symbol, is_data=offered[symbol.name].is_data, size=offered[symbol.name].size)
        for symbol in wanted
        if symbol.name in offered
    ]
    return placeholder.shared_object(library.facts.machine, name, symbols)


def _find(host: Host, name: str, user: Program, default: tuple[Path, ...]) -> Program:
    origin = str(user.path.parent)
    own = [Path(path.replace("$ORIGIN", origin).replace("${ORIGIN}", origin))
           for path in user.facts.runpath]  # fmt: skip
    for path in (directory / name for directory in (*own, *default)):
        if host.exists(path):
            data = host.read(path)
            facts = elf.parse(data, str(path))
            if (facts.machine, facts.bits) == (user.facts.machine, user.facts.bits):
                return Program(path, data, facts)
    raise TinykdumpError(
        f"library {name} of {user.path} is not installed", f"reinstall the package of {user.path}"
    )
