# SPDX-License-Identifier: GPL-2.0-or-later
"""The manifest: what an image was made from. A comparison tells whether the image is stale."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields

from tinykdump.errors import TinykdumpError
from tinykdump.image.entries import Entry

_DIGEST = re.compile("[0-9a-f]{64}|")


@dataclass(frozen=True)
class Input:
    """One file of the host that went into the image."""

    source: str
    sha256: str
    package: str = ""  # its owner according to the rpm database; empty: none


@dataclass(frozen=True)
class Manifest:
    """What tinykdump has to know of an image without unpacking it."""

    kver: str
    kernel: str  # path of the kernel image that is loaded with it
    plan: str  # SHA-256 over every entry of the plan: equal means nothing to rebuild
    modules: tuple[str, ...]  # names, in load order
    inputs: tuple[Input, ...]
    key: str  # fingerprint of the key that dumps are encrypted to; empty: not encrypted
    target: str
    compression: str
    cmdline: str  # of the crash kernel
    margin: int  # percent
    packed: int  # bytes
    unpacked: int  # bytes, in whole pages
    drivers: int  # bytes that its modules take once they are loaded
    filesystems: tuple[str, ...] = ()  # that it can mount; none: written by an older version
    filesystem_bytes: tuple[int, ...] = ()  # what each of them adds to the image
    apart: bool = False  # whether the configuration names the kernel, whatever kernel crashes
    # Devices of this machine that a dump may need, and that the crash kernel has no driver for.
    undriven: tuple[str, ...] = ()
    # Modules of the watchdogs that were running, and of their buses.
    watchdogs: tuple[str, ...] = ()
    draws: bool = False  # whether the crash kernel has a copy of the screen in memory
    sha256: str = ""  # of the packed image; empty: written by an older version
    settings: str = ""  # SHA-256 of the configuration, the key and the script in it

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(asdict(self), indent=2) + "\n"


def plan_digest(entries: Sequence[Entry], *extra: str) -> str:
    """A SHA-256 over a plan and anything else that determines the image's bytes."""
    digest = hashlib.sha256()
    for text in extra:
        digest.update(f"{text}\0".encode())
    for entry in entries:
        digest.update(f"{entry.path}\0{entry.mode:o}\0{entry.digest}\0".encode())
    return digest.hexdigest()


def parse(text: str, name: str) -> Manifest:
    """Read manifest.json. Raises TinykdumpError when it is not what to_json() wrote.

    Fields that have a default may be missing: older versions did not write them.
    """
    try:
        values = json.loads(text)
        known = {field.name for field in fields(Manifest)}
        needed = {field.name for field in fields(Manifest) if field.default is MISSING}
        if not needed <= set(values) <= known:
            raise ValueError
        inputs = tuple(Input(**item) for item in values.pop("inputs"))
        modules = tuple(str(name) for name in values.pop("modules"))
        filesystems = tuple(str(name) for name in values.pop("filesystems", ()))
        sizes = tuple(int(size) for size in values.pop("filesystem_bytes", ()))
        undriven = tuple(str(name) for name in values.pop("undriven", ()))
        watchdogs = tuple(str(name) for name in values.pop("watchdogs", ()))
        made = Manifest(**values, inputs=inputs, modules=modules, filesystems=filesystems,
                        filesystem_bytes=sizes, undriven=undriven,
                        watchdogs=watchdogs)  # fmt: skip
        for field in fields(made):
            if field.type in (str, int, bool) and type(getattr(made, field.name)) is not field.type:
                raise TypeError
        if not _DIGEST.fullmatch(made.sha256):
            raise ValueError
    except (ValueError, TypeError):
        raise TinykdumpError(f"{name} is damaged", "rebuild the image with tinykdump -b") from None
    return made
