# SPDX-License-Identifier: GPL-2.0-or-later
"""The one file of values that the crash side reads. Values in, text out; no I/O here.

src/crash/init and lib.sh source it. Everything in it is resolved and checked by now, and
quoted for POSIX sh, so that the crash side has nothing to parse and nothing to decide.
"""

import shlex
from dataclasses import dataclass

from tinykdump.config import COMPRESSIONS, Config

# Where the user's script stands in the image.
SCRIPT = "/script"


@dataclass(frozen=True)
class Machine:
    """What the crash side says and avoids on behalf of this machine."""

    id: str  # a name for this machine on a stick that several share
    root_uuid: str  # of the file system that is never written; empty: unknown


def render(config: Config, *, machine: Machine, key_time: str, version: str) -> str:
    """The text of /etc/tinykdump.conf.

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
