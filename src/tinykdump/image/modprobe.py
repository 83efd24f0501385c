# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses modprobe.d(5), the administrator's rules for modules. Pure: no I/O.

The crash kernel has no modprobe, so the build applies all rules.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from tinykdump.image.modinfo import normal, softdep

# Commands that do nothing: an "install" line with one of them disables the module.
_NOTHING = ("true", "false", ":")


@dataclass(frozen=True)
class Rules:
    """The rules of all files; names of modules as the kernel spells them."""

    aliases: tuple[tuple[str, str], ...] = ()  # pattern, module
    blacklist: frozenset[str] = frozenset()  # modules not loaded for a device's modalias
    disabled: frozenset[str] = frozenset()  # modules never loaded
    options: dict[str, str] = field(default_factory=dict)  # parameters, as insmod takes them
    softdeps: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)  # pre, post

    def aliased(self, name: str) -> tuple[str, ...]:
        """The modules to load for a name or a device's modalias."""
        return tuple(
            module for pattern, module in self.aliases if fnmatchcase(normal(name), pattern)
        )


def parse(lines: Iterable[str]) -> Rules:
    """Read the lines of all files, in order. Lines that modprobe would ignore are left out."""
    aliases: list[tuple[str, str]] = []
    blacklist: set[str] = set()
    disabled: set[str] = set()
    options: dict[str, str] = {}
    softdeps: dict[str, tuple[list[str], list[str]]] = {}
    for line in lines:
        match line.split(None, 2):
            case ["alias", pattern, module]:
                aliases.append((_normal_pattern(pattern), normal(module.split()[0])))
            case ["blacklist", module, *_]:
                blacklist.add(normal(module))
            case ["install", module, command]:
                if PurePosixPath(command.split()[0]).name in _NOTHING:
                    disabled.add(normal(module))
            case ["options", module, words]:
                earlier = options.get(normal(module), "")
                options[normal(module)] = f"{earlier} {words}".strip()
            case ["softdep", module, words]:
                softdeps.setdefault(normal(module), softdep(words))
    return Rules(tuple(aliases), frozenset(blacklist), frozenset(disabled), options, softdeps)


def _normal_pattern(pattern: str) -> str:
    """A pattern for names as the kernel spells them: in brackets, "-" stays the sign of a range."""
    return "".join(
        part if part.startswith("[") else normal(part) for part in re.split(r"(\[[^]]*\])", pattern)
    )


def logical_lines(text: str) -> Iterator[str]:
    """The lines of a file of modprobe.d or depmod.d: a backslash at the end joins two lines."""
    for line in text.replace("\\\n", "").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.replace("\t", " ").strip()
