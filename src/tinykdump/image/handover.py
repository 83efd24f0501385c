# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host hands to the crash side: these files, and nothing else. No I/O here.

src/crash has no other input of the host's: everything is resolved and checked by now, so that it
has nothing to find out and nothing to decide. Beside them an image holds programs, modules and
firmware, which are opened by their names. The configuration is quoted for POSIX sh, which sources
it.
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

# Where each one is in the image, and what it says.
FILES: Mapping[str, str] = {
    CONFIGURATION: "name=value lines of shell: the configuration, and what this machine is called",
    KEY: "the public key that dumps are encrypted to; not there: they are not",
    MODULES: "a line for each module in load order: its path, and parameters as insmod has them",
    RENAMED: "a line for each place in makedumpfile, in bytes, that may have to be renamed there",
    SCRIPT: "the user's program that runs before the dump; not there: none does",
}


@dataclass(frozen=True)
class Machine:
    """What the crash side says and avoids on behalf of this machine."""

    id: str  # a name for this machine on a stick that several share
    root_uuid: str  # of the file system that is never written; empty: unknown


def render(config: Config, *, machine: Machine, key_time: str, version: str) -> str:
    """The text of CONFIGURATION.

    ``key_time`` is a time at which the key can encrypt, as gpg takes it; empty: do not encrypt.
    """
    values = {
        "VERSION": version,
        "MACHINE": machine.id,
        "ROOT_UUID": machine.root_uuid,
        "TARGET_TAG": config.target.tag,
        "TARGET_VALUE": config.target.value,
        "FILESYSTEMS": " ".join(config.filesystems),
        "WAIT": str(config.wait),
        "KEEP": str(config.keep),
        "COMPRESSION": COMPRESSIONS[config.compression],
        "LEVEL": str(config.level),
        "KEY_TIME": key_time,
        "STALL": str(config.stall),
        "SCRIPT": SCRIPT if config.script else "",
        "SCRIPT_WAIT": str(config.script_wait),
        "FINAL_ACTION": config.final_action,
    }
    lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join(["# Made by tinykdump; read by /init.", *lines, ""])
