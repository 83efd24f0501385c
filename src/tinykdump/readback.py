# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads back the dump of a rehearsal: whether it is what was to be saved, and can be restored."""

import os
from dataclasses import dataclass
from pathlib import Path

from tinykdump import dumps, keys, parts, restore, vmcoreinfo
from tinykdump.dump import LOG, STREAMS
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host

_HINT = "run tinykdump test --rehearse again"


@dataclass(frozen=True)
class Wanted:
    """What the dump has to be."""

    number: str  # of the rehearsal
    kver: str  # of the kernel that crashed
    key: str  # the fingerprint of the key; empty: not encrypted


def check(host: Host, place: Path, wanted: Wanted, target: Path) -> str:
    """What was checked of the newest dump on the stick that is mounted there, in words.

    It is restored to ``target``. Raises TinykdumpError if it is not what is wanted, OSError.
    """
    complete = [saved.directory for saved in dumps.on(place) if saved.complete]
    if not complete:
        raise TinykdumpError("no complete dump is on the stick", _HINT)
    found, told = parts.look(complete[-1]), parts.test(complete[-1])
    if not told or told[0] != wanted.number:
        raise TinykdumpError("the dump does not have the id of this rehearsal", _HINT)
    for file in STREAMS[LOG], "vmcore":
        if all(stream.file != file for stream in found.streams):
            raise TinykdumpError(f"the dump has no {file}", _HINT)
    if not _is_readable(host, wanted.key):
        for stream in found.streams:
            _check_sums(stream)
        return "the sums are right; not decrypted, because the secret key is not on this machine"
    homes = [host.path(keys.MACHINE_KEYS)]
    with keys.ending_agent(host):
        done = restore.restore(found, target, homes, plain=not wanted.key)
    for failure in done.failures:
        raise failure
    by_name = {path.name: path for path in done.files}
    if wanted.number not in by_name[STREAMS[LOG]].read_text(errors="replace"):
        raise TinykdumpError("the log in the dump does not have the id of this rehearsal", _HINT)
    with by_name["vmcore"].open("rb") as core:
        info = vmcoreinfo.find(lambda at, size: os.pread(core.fileno(), size, at))
    if info is None or info.release != wanted.kver:
        release = (info and info.release) or "an unknown kernel"
        raise TinykdumpError(f"the vmcore is of {release}, not of {wanted.kver}", _HINT)
    return f"log and vmcore were {'decrypted and ' * bool(wanted.key)}read"


def _is_readable(host: Host, key: str) -> bool:
    """Whether the dump is not encrypted, or to the key that was made for this machine."""
    if not key:
        return True
    try:
        own = keys.machine_key(host, create=False)
        return own.fingerprint == key and bool(
            keys.secret_home(own, [host.path(keys.MACHINE_KEYS)])
        )
    except TinykdumpError:
        return False


def _check_sums(stream: parts.Stream) -> None:
    """Read all parts of a stream. Raises TinykdumpError if one is missing or damaged."""
    source = parts.Source(stream)
    while source.read(parts.CHUNK):
        pass
    if source.problem:
        raise source.problem
    if stream.missing:
        raise TinykdumpError(f"{stream.missing} is missing", "see the console")
