# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists the dumps on sticks. Reads only; what is on a stick can be anybody's."""

import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from tinykdump import dmesg, dump, dumps, hardware, keyring, mounts, openpgp, parts, stick
from tinykdump.clock import local, shown
from tinykdump.decrypt import decrypt
from tinykdump.dumps import Saved
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.parts import Dump
from tinykdump.room import amount
from tinykdump.stick import Stick
from tinykdump.text import printable

# Bytes of a log that is decrypted for its panic line; more would take seconds.
_LARGEST_LOG = 4 << 20

# How many dumps of one machine are looked at, the newest ones: a stick can have any number.
_MOST = 1000

_HEADINGS = ("TIME", "MACHINE", "KERNEL", "SIZE", "STATE", "KEY", "PANIC", "DIRECTORY")


@dataclass(frozen=True)
class Found:
    """One dump."""

    time: datetime | None  # of the crash, by the crash kernel's clock; None: not known
    machine: str  # its name on the stick
    here: bool  # whether that is this machine
    kernel: str  # that crashed; empty: not known
    panic: str  # why; empty: not known
    size: int  # bytes on the stick
    complete: bool
    test: bool  # whether tinykdump test made it
    encrypted: bool
    key: bool  # whether a secret key that decrypts it is here
    device: str
    directory: str  # where it is mounted, or on the stick if that is not mounted

    def row(self) -> tuple[str, ...]:
        """The dump as cells of the table."""
        key = ("here" if self.key else "missing") if self.encrypted else "plain"
        state = ("complete" if self.complete else "partial") + ", test" * self.test
        return (
            shown(self.time) if self.time else "unknown", self.machine + " (this)" * self.here,
            self.kernel or "-", amount(self.size), state, key, self.panic or "-", self.directory,
        )  # fmt: skip


def to_text(found: Sequence[Found]) -> str:
    """The dumps as a table."""
    rows = [_HEADINGS, *(tuple(map(printable, each.row())) for each in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def to_json(found: Sequence[Found]) -> str:
    """The dumps as JSON. Times are in ISO 8601 with the offset of the local zone."""
    values = {"version": 1, "dumps": [asdict(each) for each in found]}
    return json.dumps(values, indent=2, default=datetime.isoformat)


@dataclass(frozen=True)
class _Place:
    """A stick whose files can be read now."""

    device: Path
    path: Path  # where its files are
    prefix: str  # of the names of its directories, for the user


def find(
    host: Host, target: str, homes: Sequence[Path], *, mount: bool = False
) -> tuple[tuple[Found, ...], tuple[TinykdumpError, ...]]:
    """The dumps on the sticks that are mounted, the newest first, and why others cannot be read.

    With ``mount``, also those on other sticks that have the tag ``target``: these are mounted
    read-only where only root can enter. ``homes`` are GnuPG directories that may have secret keys.
    Raises TinykdumpError.
    """
    owners = _owners(homes)
    found: list[Found] = []
    failures: list[TinykdumpError] = []
    here = hardware.machine_name(host)
    for place in _mounted(host):
        found += _dumps(place, here, owners)
    for each in not_mounted(host, target) if mount else ():
        try:
            with dumps.readable(host, each) as path:
                found += _dumps(_Place(each.device, path, f"{each.device}:"), here, owners)
        except TinykdumpError as error:
            failures.append(TinykdumpError(f"{each.device}: {error.message}", error.hint))
    return tuple(sorted(found, key=_order, reverse=True)), tuple(failures)


def _order(found: Found) -> tuple[float, str]:
    return found.time.timestamp() if found.time else 0.0, found.directory


def not_mounted(host: Host, target: str) -> tuple[Stick, ...]:
    """The sticks with the tag ``target`` that are not mounted. Raises TinykdumpError."""
    return tuple(each for each in dumps.sticks(host, target) if each.mounted is None)


def _owners(homes: Sequence[Path]) -> Mapping[str, Path]:
    """Key ID -> the home directory that has its secret part. Raises TinykdumpError."""
    there = [home for home in homes if os.access(home, os.R_OK | os.X_OK)]
    return {key: home for home in reversed(there) for key in keyring.secret_key_ids(home)}


def _mounted(host: Host) -> Iterator[_Place]:
    for device in stick.behind_usb(host):
        where = mounts.mount_point(host, device)
        if where is not None:
            yield _Place(device, host.path(where), f"{where}/")


def _dumps(place: _Place, here: str, owners: Mapping[str, Path]) -> Iterator[Found]:
    seen: Counter[str] = Counter()
    for saved in reversed(dumps.on(place.path)):
        seen[saved.machine] += 1
        if seen[saved.machine] <= _MOST:
            yield _dump(place, saved, saved.machine == here, owners)


def _dump(place: _Place, saved: Saved, here: bool, owners: Mapping[str, Path]) -> Found:
    try:
        content = parts.look(saved.directory)
    except TinykdumpError:  # nothing was saved
        content = Dump(saved.directory, (), ())
    encrypted = any(stream.encrypted for stream in content.streams)
    home = _home(content, owners)
    log = _log(content, home)
    return Found(
        time=_time(saved.name),
        machine=saved.machine,
        here=here,
        kernel=dmesg.kernel(log),
        panic=dmesg.reason(log),
        size=sum(stream.size for stream in content.streams),
        complete=saved.complete and _has_memory(content),
        test=parts.test(saved.directory) is not None,
        encrypted=encrypted,
        key=home is not None,
        device=str(place.device),
        directory=f"{place.prefix}{saved.directory.relative_to(place.path)}",
    )


def _has_memory(content: Dump) -> bool:
    return any(
        stream.file == "vmcore" and not stream.missing and all(part.sums for part in stream.parts)
        for stream in content.streams
    )


def _time(name: str) -> datetime | None:
    when = dump.time(name)
    return when and local(when.timestamp())


def _home(content: Dump, owners: Mapping[str, Path]) -> Path | None:
    """The home directory that has the secret key of a dump, or None."""
    for stream in content.streams:
        if stream.encrypted and stream.parts:
            try:
                return owners.get(openpgp.recipient(stream.head(openpgp.HEAD)))
            except OSError:
                continue
    return None


def _log(content: Dump, home: Path | None) -> str:
    """The log of the crashed kernel, as far as it can be read without asking; "" if not."""
    for stream in content.streams:
        if stream.name != "dmesg.txt" or stream.size > _LARGEST_LOG:
            continue
        text, source = io.BytesIO(), parts.Source(stream)
        with suppress(TinykdumpError, OSError):  # what was read before is shown
            if not stream.encrypted:
                decrypt(stream, source, None, text)
            elif home is not None:
                with keyring.silent(home) as found:
                    decrypt(stream, source, found, text)
        return text.getvalue().decode(errors="replace")
    return ""
