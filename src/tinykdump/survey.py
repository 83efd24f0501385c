# SPDX-License-Identifier: GPL-2.0-or-later
"""Collects the status of this machine. Reads only."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tinykdump import (
    actions,
    backup,
    crash,
    dump,
    dumps,
    kdump_service,
    kernels,
    keys,
    load,
    notice,
    pstore,
    rehearsal,
    reservation,
    state,
    stick,
    trial,
)
from tinykdump.clock import local, shown
from tinykdump.config import Config
from tinykdump.dumps import Saved
from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import possible
from tinykdump.host import Host
from tinykdump.image import programs
from tinykdump.image.manifest import Manifest
from tinykdump.keys import Key
from tinykdump.memory import MIB
from tinykdump.reservation import Reservation
from tinykdump.status import Status
from tinykdump.stick import Stick

# Seconds before the expiry of a key from which on it is a problem: time to make a new one.
_SOON = 30 * 24 * 3600


def collect(host: Host, config: Config) -> Status:
    """Read the status. Raises TinykdumpError only if the kernel has no kexec."""
    problems: list[str] = []
    held, mine = reservation.read(host), load.ours(host)
    key = _key(host, config, problems)
    image = _image(host, config, problems)
    needed = _loading(host, config, held, image, mine, key=key, problems=problems)
    target = mine.target if mine else str(config.target)
    expected = stick.expected_dump(host, config.level)
    plugged = _stick(host, config, mine, target, expected=expected, problems=problems)
    problems.extend(_of_key(host, config, key) if key else ())
    running, saved = host.running_kernel(), crash.on_stick(host, plugged)
    crashing = (mine.kver, mine.kernel) if mine else (running,)
    kernel_config = kernels.config(host, *crashing)
    lacks = programs.shortcoming(host, kernels.config(host, running))
    boots = pstore.boots(host)
    last = crash.last(boots, pstore.crash_log(host, boots), saved or ())
    tested, rehearsed = trial.last(host), rehearsal.last(host)
    more = (trial.problem(tested), rehearsal.problem(rehearsed, mine))
    problems.extend(filter(None, more))
    foreign = held.loaded and mine is None
    fingerprint = mine.key if mine else key.fingerprint if key else ""
    is_known = key is not None and key.fingerprint == fingerprint
    return Status(
        running=running,
        image_built=_written(host, state.manifest_path(image.kver)) if image else None,
        armed=mine is not None,
        loaded=mine.kver if mine else "foreign" if foreign else "",
        loaded_at=_written(host, state.LOADED) if mine else None,
        reserved=held.size,
        needed=needed,
        encrypted=bool(mine.key) if mine else config.encrypt,
        key=fingerprint,
        key_expires=local(key.expires) if key and is_known and key.expires else None,
        key_backup=backup.made(host, fingerprint) if is_known and not config.key else None,
        target=target,
        stick=str(plugged.device) if plugged else "",
        stick_filesystem=plugged.filesystem if plugged else "",
        stick_free=plugged.free if plugged else None,
        expected_dump=expected,
        dumps=None if saved is None else len(saved),
        incomplete_dumps=None if saved is None else sum(not each.complete for each in saved),
        last_dump=_place(plugged, saved),
        last_dump_at=_time(saved),
        crash_log=pstore.description(host, kernel_config, efi=config.efi_log),
        crash=last and replace(last, seen=notice.is_seen(host, last)),
        test=tested,
        rehearsal=rehearsed,
        problems=tuple(dict.fromkeys(problems)),
        notes=(lacks.note,) if lacks else (),
    )  # fmt: skip


def _written(host: Host, path: Path) -> datetime | None:
    """When a file of tinykdump's own was written; None: it is not there."""
    try:
        return local(host.path(path).stat().st_mtime)
    except OSError:
        return None


def _place(plugged: Stick | None, saved: Sequence[Saved] | None) -> str:
    """The path of the newest dump on the stick; empty: there is none."""
    if not saved or plugged is None or plugged.mounted is None:
        return ""
    return str(dump.of_machine(plugged.mounted, saved[-1].machine) / saved[-1].name)


def _time(saved: Sequence[Saved] | None) -> datetime | None:
    when = dump.time(saved[-1].name) if saved else None
    return when and local(when.timestamp())


def _key(host: Host, config: Config, problems: list[str]) -> Key | None:
    """The key of the configuration; None: not encrypted, or there is none."""
    if not config.encrypt:
        return None
    with _as_problem(problems):
        return keys.of_config(host, config.key)
    return None


def _of_key(host: Host, config: Config, key: Key) -> Iterator[str]:
    """Find problems of a key that works. They do not keep a dump from being saved today."""
    if 0 < key.expires < time.time() + _SOON:
        yield (f"key {key.fingerprint} expires {shown(local(key.expires))}, and no image can be "
               f"built then ({keys.EXTEND})")  # fmt: skip
    if problem := backup.problem(host, config, key.fingerprint):
        yield problem


def _image(host: Host, config: Config, problems: list[str]) -> Manifest | None:
    """The image for crashes of the running kernel; None: there is none."""
    with _as_problem(problems):
        kver = state.crash_version(host, config.kernel, host.running_kernel())
        image = state.read_manifest(host, kver)
        if image is None:
            problems.append(f"no image for {kver} (run tinykdump -l)")
        return image
    return None


def _loading(host: Host, config: Config, held: Reservation, image: Manifest | None,
             mine: Manifest | None, *, key: Key | None, problems: list[str]) -> int:  # fmt: skip
    """Add what is wrong with the crash kernel; the bytes that the image needs, 0: no image."""
    other = "" if config.takeover else kdump_service.enabled(host)
    if other:
        problems.append(str(kdump_service.refusal(other)))
    elif held.loaded and mine is None:
        problems.append("another program's crash kernel is loaded (unload it, for example with "
                        "systemctl stop kdump, and run tinykdump -l; or set takeover = yes in "
                        "/etc/default/tinykdump)")  # fmt: skip
    with _as_problem(problems):
        problems.extend(_outdated(host, mine, held) if mine else ())
    with _as_problem(problems):
        if mine and (stale := _stale(host, config, mine, key)):
            problems.append(f"{stale} (run tinykdump -l)")
    needed = 0
    with _as_problem(problems):
        if image is not None:
            need = load.need_of(host, image)
            needed = need.total
            if not held.loaded and not other:
                reservation.goal(held, need)
                problems.append("no crash kernel is loaded (run tinykdump -l; tinykdump.service "
                                "does so at every boot)")  # fmt: skip
    return needed


def _outdated(host: Host, mine: Manifest, held: Reservation) -> Iterator[str]:
    """Find problems of the loaded crash kernel. Raises TinykdumpError."""
    for device in mine.undriven:
        yield f"the crash kernel {mine.kver} has no driver for {device} (see kernel in [image])"
    least = load.need_of(host, mine).minimum
    if held.size < least:
        yield (f"the loaded crash kernel needs {least // MIB} MiB, fewer are reserved "
               "(run tinykdump -l)")  # fmt: skip


def _stale(host: Host, config: Config, mine: Manifest, key: Key | None) -> str:
    """Why another image should be loaded, or ""."""
    image = state.read_manifest(host, mine.kver)
    loaded = (mine.plan, mine.kernel, mine.cmdline)
    if image is not None and (image.plan, image.kernel, image.cmdline) != loaded:
        return f"the image of {mine.kver} is newer than the loaded one"
    if config.encrypt and key is None:  # why is said already
        return ""
    fingerprint = key.fingerprint if key else ""
    if (mine.target, mine.key) != (str(config.target), fingerprint):
        return (f"the loaded image has {mine.target} and key {mine.key or 'none'}, but the "
                f"configuration has {config.target} and key {fingerprint or 'none'}")  # fmt: skip
    if not actions.fits(host, config, mine):
        return ("the loaded image was made for another configuration or other devices, or with "
                "options")  # fmt: skip
    return ""


def _stick(host: Host, config: Config, mine: Manifest | None, target: str, *,
           expected: int, problems: list[str]) -> Stick | None:  # fmt: skip
    """The stick that is plugged in; add what is wrong with it."""
    with _as_problem(problems):
        found = dumps.counted(host, stick.find(host, target), config.keep)
        known = (mine.filesystems if mine else ()) or possible(config.filesystems)
        problems.extend(map(str, stick.problems(found, target, known, expected)))
        return found[0] if found else None
    return None


@contextmanager
def _as_problem(problems: list[str]) -> Iterator[None]:
    """Record a TinykdumpError of the block as a problem, and continue."""
    try:
        yield
    except TinykdumpError as error:
        problems.append(str(error))
