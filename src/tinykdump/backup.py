# SPDX-License-Identifier: GPL-2.0-or-later
"""Copies the machine's secret key to a file, and notes that this was done once."""

import json
import os
import time
from datetime import datetime
from pathlib import Path

from tinykdump import files, keys, state, stick
from tinykdump.clock import local
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host

NOTE = state.STATE / "backup.json"


def made(host: Host, fingerprint: str) -> datetime | None:
    """When the secret key was copied to a file; None: not yet."""
    try:
        note = json.loads(host.text(NOTE) or "{}")
        if note["key"] != fingerprint:
            return None
        return datetime.fromisoformat(note["date"]).astimezone()
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def problem(host: Host, config: Config, fingerprint: str) -> str:
    """Why dumps may be lost with this machine; empty: no reason is known."""
    if not config.encrypt or config.key or not fingerprint or made(host, fingerprint):
        return ""
    return "only this machine can read its dumps (copy its secret key: tinykdump key backup FILE)"


def make(host: Host, config: Config, file: Path) -> str:
    """Write the machine's secret key to a new file that only root can read; its fingerprint.

    Raises TinykdumpError, also if the file would be on the stick for dumps; OSError if it cannot
    be written.
    """
    if config.key:
        raise TinykdumpError(
            f"dumps are encrypted to your key {config.key}, not to a key of this machine",
            "back it up where its secret part is",
        )
    _refuse_stick(host, config, file)
    key = keys.machine_key(host, create=False)
    text = keys.secret(host.path(keys.MACHINE_KEYS), key.fingerprint)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise TinykdumpError(f"{file} exists", "name a new file") from None
    try:
        with files.naming(file), os.fdopen(descriptor, "w") as new:
            new.write(text)
            new.flush()
            os.fsync(new.fileno())
        files.sync_directory(file.absolute().parent)
    except BaseException:  # also Ctrl-C
        file.unlink(missing_ok=True)  # a part of a key would be taken for a backup
        raise
    note = {"key": key.fingerprint, "date": local(int(time.time())).isoformat()}
    files.publish({host.path(NOTE): json.dumps(note).encode()})
    return key.fingerprint


def _refuse_stick(host: Host, config: Config, file: Path) -> None:
    """Raise TinykdumpError if ``file`` is on a stick for dumps: whoever has it could read them."""
    directory = file.absolute().parent.resolve()
    for each in stick.find(host, str(config.target)):
        if each.mounted is None:
            continue
        place = host.path(each.mounted)
        number = host.text(f"/sys/class/block/{each.device.name}/dev")
        device = directory.stat().st_dev if directory.is_dir() else 0
        if directory.is_relative_to(place) or number == f"{os.major(device)}:{os.minor(device)}":
            raise TinykdumpError(
                f"{file} is on the stick, where whoever finds it could read the dumps",
                "name a file elsewhere",
            )
