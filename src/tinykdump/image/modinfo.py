# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the .modinfo section of a kernel module. Pure: bytes in, values out.

The section is a list of NUL-terminated ``tag=value`` strings, which come from the macros of
include/linux/moduleinfo.h and include/linux/module.h in the kernel.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from io import BytesIO

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from tinykdump.errors import TinykdumpError
from tinykdump.image.elf import BROKEN

# Increase this when ModInfo changes, or what is read from a module.
FORMAT = 1

REINSTALL = "reinstall the kernel's packages"


@dataclass(frozen=True)
class ModInfo:
    """The tags of one module that matter for loading it."""

    vermagic: str  # the kernel it was built for, then flags: "6.12.1 SMP preempt ..."
    depends: tuple[str, ...] = ()
    softdep_pre: tuple[str, ...] = ()
    softdep_post: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()
    size: int = 0  # bytes of memory that its sections take when loaded

    @property
    def kernel(self) -> str:
        """The kernel version that the module was built for."""
        return self.vermagic.split(" ", 1)[0]


def normal(name: str) -> str:
    """The name as the kernel spells it: modprobe treats ``-`` and ``_`` alike."""
    return name.replace("-", "_")


def parse_module(data: bytes, name: str) -> ModInfo:
    """Read an unpacked .ko; ``name`` is for messages.

    Raises TinykdumpError when it is not a complete ELF file or has no .modinfo.
    """
    broken = TinykdumpError(f"{name} is not a complete kernel module", REINSTALL)
    text, size = b"", 0
    try:
        elf = ELFFile(BytesIO(data))
        # The section headers are at the end of the file, so a truncated file lacks them;
        # pyelftools would read past the end without an error.
        table_end = elf["e_shoff"] + elf["e_shnum"] * elf["e_shentsize"]
        # In one pass: pyelftools takes 0.05 ms for a section, and a module has a hundred.
        sections = elf.iter_sections() if table_end <= len(data) else iter(())
        for section in sections:
            if section.name == ".modinfo":
                text = section.data()
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC:
                size += section["sh_size"]
    except BROKEN:
        raise broken from None
    if not text:
        raise broken
    return replace(parse_modinfo(text), size=size)


def parse_modinfo(text: bytes) -> ModInfo:
    """Read the contents of a .modinfo section."""
    tags: dict[str, list[str]] = {}
    for entry in text.decode(errors="replace").split("\0"):
        tag, equals, value = entry.partition("=")
        if equals:
            tags.setdefault(tag, []).append(value)
    softdeps = [softdep(value) for value in tags.get("softdep", [])]
    return ModInfo(
        vermagic=next(iter(tags.get("vermagic", [])), ""),
        depends=tuple(
            normal(name) for value in tags.get("depends", []) for name in value.split(",") if name
        ),
        softdep_pre=tuple(name for pre, _ in softdeps for name in pre),
        softdep_post=tuple(name for _, post in softdeps for name in post),
        aliases=tuple(tags.get("alias", [])),
        firmware=tuple(tags.get("firmware", [])),
    )


def to_json(noted: Mapping[str, ModInfo]) -> str:
    """What modules say, by the SHA-256 of their files, as from_json() reads it."""
    modules = {digest: asdict(info) for digest, info in noted.items()}
    return json.dumps({"format": FORMAT, "modules": modules}, sort_keys=True) + "\n"


def from_json(text: str) -> Mapping[str, ModInfo]:
    """The reverse; nothing if another version of tinykdump wrote it, or if it is damaged."""
    try:
        read = json.loads(text)
        if read["format"] != FORMAT:
            return {}
        return {str(digest): _info(**fields) for digest, fields in read["modules"].items()}
    except (ValueError, TypeError, LookupError, AttributeError):
        return {}


def _info(*, vermagic: object, size: object, **lists: object) -> ModInfo:
    if not isinstance(vermagic, str) or not isinstance(size, int):
        raise TypeError
    return ModInfo(vermagic, size=size, **{name: _texts(each) for name, each in lists.items()})


def _texts(words: object) -> tuple[str, ...]:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError
    return tuple(words)


def softdep(value: str) -> tuple[list[str], list[str]]:
    """Split ``pre: a b post: c`` (MODULE_SOFTDEP, modprobe.d(5)) into both lists of names."""
    lists: dict[str, list[str]] = {"pre:": [], "post:": []}
    current: list[str] = []
    for word in value.split():
        if word in lists:
            current = lists[word]
        else:
            current.append(normal(word))
    return lists["pre:"], lists["post:"]
