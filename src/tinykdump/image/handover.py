# SPDX-License-Identifier: GPL-2.0-or-later
"""The files through which the host tells the crash side what to do. Pure: no I/O.

src/crash gets no other information from the host. The build has resolved and checked everything,
so src/crash decides nothing. An image also holds programs, modules and firmware, which src/crash
and the kernel open by name. The configuration is quoted for POSIX sh, which sources it.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from tinykdump.config import COMPRESSIONS, Config

CONFIGURATION = "/etc/tinykdump.conf"
KEY = "/etc/tinykdump.key"
MODULES = "/lib/modules.order"
RENAMED = "/lib/makedumpfile.renamed"
SCRIPT = "/script"

# Path in the image -> content.
FILES: Mapping[str, str] = {
    CONFIGURATION: "name=value lines of shell: the configuration, and the name of this machine",
    KEY: "the public key that dumps are encrypted to; absent: dumps are not encrypted",
    MODULES: "a line for each module in load order: its path, and its parameters for insmod",
    RENAMED: "a line for each offset in makedumpfile, in bytes, of a name that may need a change",
    SCRIPT: "the user's program, which runs between log and memory; absent: none runs",
}


@dataclass(frozen=True)
class Machine:
    """What the crash side has to know of this machine."""

    id: str  # the machine's name on a stick that several machines share
    root_uuid: str  # of the root file system, which is never written; empty: unknown
    clock_zone: str = ""  # whose local time the hardware clock has, as TZ has it; empty: UTC


def render(config: Config, *, machine: Machine, key_time: str, ocb: str = "", version: str) -> str:
    """The text of CONFIGURATION.

    ``key_time`` is a time at which the key is valid, in gpg's format; empty: do not encrypt.
    ``ocb`` is the option with which gpg encrypts with OCB, whatever the key says; empty: none.
    """
    values = {
        "VERSION": version,
        "MACHINE": machine.id,
        "ROOT_UUID": machine.root_uuid,
        "CLOCK_ZONE": machine.clock_zone,
        "TARGET_TAG": config.target.tag,
        "TARGET_VALUE": config.target.value,
        "FILESYSTEMS": " ".join(config.filesystems),
        "WAIT": str(config.wait),
        "KEEP": str(config.keep),
        "COMPRESSION": COMPRESSIONS[config.compression],
        "LEVEL": str(config.level),
        "KEY_TIME": key_time,
        "OCB": ocb,
        "STALL": str(config.stall),
        "SCRIPT": SCRIPT if config.script else "",
        "SCRIPT_WAIT": str(config.script_wait),
        "FINAL_ACTION": config.final_action,
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join(["# Made by tinykdump; read by /init.", *lines, ""])
