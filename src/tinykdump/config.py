# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration: INI text and command line in, one frozen value out. No I/O here.

One table, ITEMS, describes every key. The parser, the overrides of the command line and the
installed default file all come from it, so they always agree.
"""

import configparser
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinykdump.errors import UsageError
from tinykdump.filesystems import AUTO, FILESYSTEMS

FILE = Path("/etc/default/tinykdump")
DROP_INS = Path("/etc/default/tinykdump.d")

# The makedumpfile(8) option for each compression.
COMPRESSIONS = {"none": "", "zlib": "-c", "lzo": "-l", "snappy": "-p", "zstd": "-z"}
FINAL_ACTIONS = ("reboot", "poweroff", "halt")

# The values of kernel that are no path.
INSTALLED = "installed"
SMALL = "small"

_MODULE = re.compile(r"[A-Za-z0-9_-]+")
# Characters that labels and UUIDs can have and that need no quoting in a shell.
_TAG = re.compile(r"(LABEL|UUID)=([A-Za-z0-9_.+-]{1,64})")


@dataclass(frozen=True)
class Target:
    """The stick that a dump goes to, by a tag as blkid(8) prints it."""

    tag: str  # LABEL or UUID
    value: str

    def __str__(self) -> str:
        return f"{self.tag}={self.value}"


@dataclass(frozen=True)
class Config:
    """The complete configuration; the form of every value has been checked."""

    target: Target
    filesystems: tuple[str, ...]  # keys of FILESYSTEMS, or AUTO
    wait: int  # seconds to wait for the stick
    keep: int  # how many complete dumps of this machine stay on the stick; 0: all
    level: int  # makedumpfile's dump level, a sum of 1, 2, 4, 8, 16
    compression: str  # a key of COMPRESSIONS
    encrypt: bool
    key: str  # a file, or a key in root's keyring; empty: the machine's own key
    script: str  # absolute path of a program to run between log and memory; empty: none
    script_wait: int  # seconds until the script is ended
    stall: int  # seconds without progress after which a dump is given up
    final_action: str  # one of FINAL_ACTIONS
    kernel: str  # INSTALLED, SMALL, or the absolute path of a kernel image
    modules: tuple[str, ...]  # to add to those that are found to be necessary
    margin: int  # percent of the computed need
    takeover: bool
    append: str  # words for the crash kernel's command line
    efi_log: bool  # whether the crash kernel may write its log to EFI variables
    efi_pstore: bool  # whether to turn that on where the distribution has turned it off
    on_install: bool  # whether to rehearse a crash of each kernel that is installed


def _flag(text: str) -> bool:
    try:
        return configparser.RawConfigParser.BOOLEAN_STATES[text.lower()]
    except KeyError:
        raise ValueError("write yes or no") from None


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"write a whole number from {low} to {high}")
        return int(text)

    return parse


def _choice(choices: Iterable[str]) -> Callable[[str], str]:
    names = tuple(choices)

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"write one of {', '.join(names)}")
        return text

    return parse


def _target(text: str) -> Target:
    match = _TAG.fullmatch(text)
    if not match:
        raise ValueError("write LABEL=name or UUID=id, as blkid prints it")
    return Target(match[1], match[2])


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.replace(",", " ").split()))


def _filesystems(text: str) -> tuple[str, ...]:
    words = _words(text)
    names = (AUTO, *FILESYSTEMS)
    if not words or set(words) - set(names):
        raise ValueError(f"write one or more of {', '.join(names)}")
    return words


def _modules(text: str) -> tuple[str, ...]:
    words = _words(text)
    wrong = [word for word in words if not _MODULE.fullmatch(word)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not a module name")
    return words


def _absolute(text: str) -> str:
    if text and not text.startswith("/"):
        raise ValueError("write an absolute path")
    return _line(text)


def _kernel(text: str) -> str:
    if text not in (INSTALLED, SMALL) and not text.startswith("/"):
        raise ValueError(f"write {INSTALLED}, {SMALL}, or the absolute path of a kernel image")
    return _line(text)


def _key(text: str) -> str:
    """A relative path is refused: it would depend on the current directory."""
    if "/" in text and not text.startswith("/"):
        raise ValueError("write an absolute path, or the name of a key in root's keyring")
    return _line(text)


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("write one line of printable text")
    return text


@dataclass(frozen=True)
class Item:
    """One key of the configuration file."""

    section: str
    key: str
    parse: Callable[[str], Any]
    default: str
    text: str  # what it does, in lines of the default file


# fmt: off
ITEMS = (
    Item("dump", "target", _target, "LABEL=TINYKDUMP",
         "The file system on the USB stick that dumps go to:\n"
         "LABEL=name or UUID=id, as blkid prints it."),
    Item("dump", "filesystems", _filesystems, AUTO,
         "File system types that the stick may have: auto is vfat, exfat, and that of the stick\n"
         "that is plugged in while the image is built. Each type makes the image larger."),
    Item("dump", "wait", _number(1, 3600), "60",
         "How many seconds the crash kernel waits for the stick."),
    Item("dump", "keep", _number(0, 9999), "5",
         "How many complete dumps of this machine stay on the stick; 0 keeps all. If the stick is\n"
         "full, older dumps are deleted to make room for a new one, but never the last one."),
    Item("dump", "level", _number(0, 31), "31",
         "Which pages to exclude from the dump, as for makedumpfile -d."),
    Item("dump", "compression", _choice(COMPRESSIONS), "lzo",
         "The compression of the dump: none, zlib, lzo, snappy or zstd."),
    Item("dump", "encrypt", _flag, "yes",
         "Whether to encrypt dumps. With no, the stick holds the machine's memory in plain text."),
    Item("dump", "key", _key, "",
         "The OpenPGP key to encrypt to: the absolute path of a file, or a key in root's keyring.\n"
         "If empty, tinykdump makes a key for this machine."),
    Item("dump", "script", _absolute, "",
         "The absolute path of a program to run in the crash kernel, between log and memory."),
    Item("dump", "script_wait", _number(1, 3600), "60",
         "After how many seconds the crash kernel ends that program."),
    Item("dump", "stall", _number(10, 86400), "300",
         "After how many seconds without progress the crash kernel ends makedumpfile; after as\n"
         "many again, it gives up the dump."),
    Item("dump", "final_action", _choice(FINAL_ACTIONS), "reboot",
         "What to do after the dump, and after every failure: reboot, poweroff or halt."),
    Item("image", "kernel", _kernel, INSTALLED,
         "The crash kernel: installed is the kernel that crashes, small that of the package\n"
         "kernel-tinykdump-crash, which needs much less memory. Or the path of a kernel image."),
    Item("image", "modules", _modules, "",
         "Modules to add to those that tinykdump finds necessary."),
    Item("crashkernel", "margin", _number(0, 400), "10",
         "How much memory to reserve beyond the computed need, in percent."),
    Item("crashkernel", "takeover", _flag, "no",
         "Whether to replace a crash kernel that another program loaded, and to load tinykdump's\n"
         "although kdump.service is enabled."),
    Item("crashkernel", "append", _line, "",
         "Parameters to add to the command line of the crash kernel."),
    Item("crashkernel", "efi_log", _flag, "yes",
         "Whether the crash kernel may write its log to EFI variables."),
    Item("crashkernel", "efi_pstore", _flag, "no",
         "Whether to turn on pstore in EFI variables if the distribution's kernel has it turned\n"
         "off, as Fedora's, and pstore has no other place."),
    Item("rehearsal", "on_install", _flag, "no",
         "Whether to rehearse a crash of each kernel that is installed, in QEMU and in the\n"
         "background: tinykdump status shows the result. It takes minutes without KVM."),
)
# fmt: on

_BY_NAME = {(item.section, item.key): item for item in ITEMS}


def parse_file(text: str, name: str) -> dict[str, str]:
    """Read one INI text; ``name`` is the file, for messages.

    Returns key -> raw text of what the file sets. Raises UsageError for text that is not
    INI, unknown sections, unknown keys, duplicate keys and invalid values.
    """
    # No section is the default section: a section name cannot be empty.
    parser = configparser.RawConfigParser(inline_comment_prefixes=("#",), default_section="")
    try:
        parser.read_string(text, source=name)
    except configparser.Error as error:
        raise UsageError(
            f"{name}: {' '.join(str(error).split())}", "write [section] and key = value lines"
        ) from None
    values = {}
    for section in parser.sections():
        for key, value in parser.items(section):
            item = _BY_NAME.get((section, key))
            if item is None:
                raise UsageError(f"{name}: [{section}] {key}: no such key", _known(section))
            parse_value(item, value, f"{name}: [{section}] {key}")
            values[key] = value
        if section not in {item.section for item in ITEMS}:
            raise UsageError(f"{name}: [{section}]: no such section", _known(section))
    return values


def _known(section: str) -> str:
    keys = [item.key for item in ITEMS if item.section == section]
    if keys:
        return f"[{section}] has {', '.join(keys)}"
    return f"sections are {', '.join(dict.fromkeys(item.section for item in ITEMS))}"


def parse_value(item: Item, text: str, where: str) -> Any:
    """The value of one key. Raises UsageError, whose message begins with ``where``."""
    try:
        return item.parse(text.strip())
    except ValueError as error:
        raise UsageError(f"{where}: {text!r} is not valid", str(error)) from None


def resolve(files: Iterable[Mapping[str, str]], options: Mapping[str, str]) -> Config:
    """Defaults, then each file in turn, then the command line's ``options``."""
    values: dict[str, Any] = {item.key: item.parse(item.default) for item in ITEMS}
    for texts in files:
        values |= {item.key: item.parse(texts[item.key].strip()) for item in ITEMS
                   if item.key in texts}  # fmt: skip
    for item in ITEMS:
        if item.key in options:
            values[item.key] = parse_value(item, options[item.key], f"option for {item.key}")
    return Config(**values)


def default_file() -> str:
    """The file that is installed: every key with its meaning and default, commented out."""
    lines = ["# SPDX-License-Identifier: GPL-2.0-or-later",
             "# tinykdump: crash dumps on a USB stick. See tinykdump(5).",
             "# Each key is shown with its default, in a comment.", ""]  # fmt: skip
    for section in dict.fromkeys(item.section for item in ITEMS):
        lines.append(f"[{section}]")
        for item in ITEMS:
            if item.section == section:
                lines += [f"# {line}" for line in item.text.splitlines()]
                lines += [f"#{item.key} = {item.default}".rstrip(), ""]
    return "\n".join(lines).rstrip() + "\n"
