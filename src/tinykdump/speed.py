# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a dump reaches the stick: as the last one did, else as fast as the stick is read.

How fast a stick is written is not tried: that would write to it.
"""

import mmap
import os
import time
from dataclasses import dataclass
from pathlib import Path

from tinykdump import dump, dumps, hardware, parts
from tinykdump.crashlog import CrashLog
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.stick import Stick

_CHUNK = 1 << 20  # bytes
_READING = 1.0  # seconds

# FAT keeps times in steps of two seconds.
_SHORTEST = 10.0


@dataclass(frozen=True)
class Speed:
    """Bytes in a second, and how they are known."""

    rate: float
    source: str
    is_read: bool  # measured by reading: writing is slower


def expected(host: Host, plugged: Stick | None, log: CrashLog | None) -> Speed | None:
    """The speed of the next dump to the stick that is plugged in; None: not known.

    ``log`` is that of the last crash kernel.
    """
    if plugged and plugged.mounted and (found := _of_last_dump(host, plugged.mounted)):
        return found
    if log and log.rate:
        return Speed(log.rate, f"as the crash kernel logged {log.when}", is_read=False)
    if plugged and (rate := _reading(host.path(plugged.device))):
        return Speed(rate, "as the stick is read now", is_read=True)
    return None


def _of_last_dump(host: Host, place: Path) -> Speed | None:
    """How fast this machine's newest complete dump was written."""
    for saved in reversed(dumps.on(host.path(place), hardware.machine_name(host))):
        if saved.complete and (rate := _rate(saved.directory)):
            return Speed(rate, f"as the dump {saved.name}", is_read=False)
    return None


def _rate(directory: Path) -> float:
    """Bytes of memory that were saved in a second; 0: not known."""
    try:
        streams = {stream.file: stream for stream in parts.look(directory).streams}
        log, memory = streams[dump.STREAMS[dump.LOG]].parts[-1].path, streams["vmcore"]
        seconds = _by_stages(directory) or _by_times(directory, log)
    except (TinykdumpError, OSError, LookupError):
        return 0.0
    return memory.size / seconds if seconds >= _SHORTEST else 0.0


def _by_stages(directory: Path) -> float:
    """How long the memory took, in seconds; 0: the crash kernel did not say."""
    try:
        with parts.open_part(directory / dump.STAGES) as handle:
            return dump.memory_seconds(handle.read(1 << 16).decode(errors="replace"))
    except OSError:  # an older version saved it
        return 0.0


def _by_times(directory: Path, log: Path) -> float:
    """The same by the times of the files, which include the user's script.

    The crash kernel saves the log first, and each sum after its part. Raises OSError.
    """
    return (directory / dump.SUMS).lstat().st_mtime - log.lstat().st_mtime


def _reading(device: Path) -> float:
    """How fast a device is read, in bytes in a second, past the cache; 0: it cannot be read."""
    done, start = 0, time.monotonic()
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return 0.0
    # Direct reads need a buffer that begins on a page.
    with mmap.mmap(-1, _CHUNK) as buffer:
        try:
            while time.monotonic() - start < _READING:
                size = os.preadv(descriptor, [buffer], done)
                if not size:
                    break
                done += size
        except OSError:
            return 0.0
        finally:
            os.close(descriptor)
    return done / (time.monotonic() - start)
