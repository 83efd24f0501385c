# SPDX-License-Identifier: GPL-2.0-or-later
"""The status of the machine. Reads only."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tinykdump import (
    backup,
    dump,
    hardware,
    kdump_service,
    kernels,
    keys,
    load,
    pstore,
    reservation,
    room,
    state,
    stick,
)
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import possible
from tinykdump.host import Host
from tinykdump.image.manifest import Manifest
from tinykdump.memory import MIB
from tinykdump.stick import Stick


@dataclass(frozen=True)
class Status:
    """The state of this machine."""

    running: str  # kernel version
    armed: bool  # tinykdump's crash kernel is loaded
    loaded: str  # version of tinykdump's crash kernel; "foreign": another program's; empty: none
    reserved: int  # bytes
    needed: int  # bytes for the running kernel's image; 0: no image
    key: str  # fingerprint that dumps are encrypted to; empty: none, or not encrypted
    encrypted: bool
    target: str  # the dump target of the loaded image, otherwise of the configuration
    stick: str  # device of the stick that is plugged in; empty: none
    last_dump: str  # path of this machine's newest dump on a mounted stick; ".partial": incomplete
    crash_log: str  # where pstore keeps the crash log; empty: nowhere
    last_crash: str  # time and result of the dump, if the previous boot ended in a crash
    older_crash: str  # the same of the newest crash in pstore, if it was in an earlier boot
    problems: tuple[str, ...]  # one line each: what is wrong (what to do)
    stick_filesystem: str  # its type; empty: not known
    stick_free: int | None  # bytes; None: not known
    expected_dump: int  # the largest size of a dump in bytes; 0: not known
    dumps: int | None  # number of this machine's dumps on the stick; None: it is not mounted
    incomplete_dumps: int | None  # how many of them are incomplete

    def to_json(self) -> str:
        """The status as JSON."""
        return json.dumps(asdict(self), indent=2)

    def to_text(self) -> str:
        """The status as lines of text."""
        crash = f"armed with {self.loaded}" if self.armed else "not armed"
        needed = f" (needed: {self.needed // MIB} MiB)" if self.needed else ""
        lines = [
            ("kernel", self.running),
            ("crash kernel", crash),
            ("reserved", f"{self.reserved // MIB} MiB{needed}"),
            ("key", self.key or ("none" if self.encrypted else "none: dumps are plain text")),
            ("stick", f"{self.target}, {self._stick() if self.stick else 'not plugged in'}"),
            ("crash log", self.crash_log or "lost: pstore has no backend (see tinykdump log)"),
            *([("dumps", self._dumps())] if self.dumps else []),
            *([("last dump", self.last_dump)] if self.last_dump else []),
            *([("last crash", self.last_crash)] if self.last_crash else []),
            *([("older crash", self.older_crash)] if self.older_crash else []),
            *(("problem", problem) for problem in self.problems),
        ]
        return "\n".join(f"{name + ':':<14}{value}" for name, value in lines)

    def _stick(self) -> str:
        """The line about the stick that is plugged in."""
        have = "free space unknown (mount it to see)"
        if self.stick_free is not None:
            have = f"{room.amount(self.stick_free)} free"
        dump = f" (a dump takes up to {room.amount(self.expected_dump)})"
        kind = self.stick_filesystem or "unknown file system"
        return f"{self.stick}, {kind}, {have}{dump * bool(self.expected_dump)}"

    def _dumps(self) -> str:
        """The line about the dumps on the stick."""
        return f"{self.dumps}" + f", {self.incomplete_dumps} incomplete" * bool(
            self.incomplete_dumps
        )


def collect(host: Host, config: Config) -> Status:
    """Read the status. Raises TinykdumpError only if the kernel has no kexec."""
    problems: list[str] = []
    running = host.running_kernel()
    held, mine = reservation.read(host), load.ours(host)
    foreign = held.loaded and mine is None
    other = "" if config.takeover else kdump_service.enabled(host)
    if other:
        problems.append(str(kdump_service.refusal(other)))
    elif foreign:
        problems.append("another program's crash kernel is loaded (see takeover in "
                        "/etc/default/tinykdump)")  # fmt: skip
    key, need = "", 0
    with _as_problem(problems):
        key = _key(host, config)
        problems.extend(filter(None, [backup.problem(host, config, key)]))
        if mine and (mine.target, mine.key) != (str(config.target), key):
            problems.append("the loaded image uses a different target or key from the "
                            f"configuration: {config.target}, key {key or 'none'} "
                            "(run tinykdump -l)")  # fmt: skip
    with _as_problem(problems):
        problems.extend(_outdated(host, mine, held) if mine else ())
    with _as_problem(problems):
        image = state.read_manifest(host, running)
        if image is None:
            problems.append(f"no image for {running} (run tinykdump -l)")
        else:
            found = load.need_of(host, image)
            need = found.total
            if not held.loaded and not other:
                reservation.goal(held, found)
                problems.append("no crash kernel is loaded (run tinykdump -l; tinykdump.service "
                                "does so at every boot)")  # fmt: skip
    target = mine.target if mine else str(config.target)
    sticks: tuple[Stick, ...] = ()
    expected = stick.expected_dump(host, config.level)
    with _as_problem(problems):
        sticks = stick.find(host, target)
        known = (mine.filesystems if mine else ()) or possible(config.filesystems)
        problems.extend(stick.problems(sticks, target, known, expected))
    plugged = sticks[0] if sticks else None
    dumps = _dumps(host, plugged)
    complete = [each for each in dumps or () if dump.is_complete(each.name)]
    kernel_config = kernels.config(host, mine.kver if mine else running)
    boots = pstore.boots(host)
    log = pstore.crash_log(host, boots)
    crash, is_last = f"{log.when}: {log.verdict}" if log else "", log and log.ended_previous(boots)
    return Status(
        running=running,
        armed=mine is not None,
        loaded=mine.kver if mine else "foreign" if foreign else "",
        reserved=held.size,
        needed=need,
        key=mine.key if mine else key,
        encrypted=bool(mine.key) if mine else config.encrypt,
        target=target,
        stick=str(plugged.device) if plugged else "",
        last_dump=str(dumps[-1]) if dumps else "",
        crash_log=pstore.description(host, kernel_config, efi=config.efi_log),
        last_crash=crash if is_last else "",
        older_crash="" if is_last else crash,
        problems=tuple(dict.fromkeys(problems)),
        stick_filesystem=plugged.filesystem if plugged else "",
        stick_free=plugged.free if plugged else None,
        expected_dump=expected,
        dumps=None if dumps is None else len(dumps),
        incomplete_dumps=None if dumps is None else len(dumps) - len(complete),
    )


def _outdated(host: Host, mine: Manifest, held: reservation.Reservation) -> Iterator[str]:
    """Find problems of the loaded crash kernel. Raises TinykdumpError."""
    image = state.read_manifest(host, mine.kver)
    if image is not None and image.plan != mine.plan:
        yield f"the image of {mine.kver} is newer than the loaded one (run tinykdump -l)"
    least = load.need_of(host, mine).minimum
    if held.size < least:
        yield (f"the loaded crash kernel needs {least // MIB} MiB, fewer are reserved "
               "(run tinykdump -l)")  # fmt: skip


@contextmanager
def _as_problem(problems: list[str]) -> Iterator[None]:
    """Record a TinykdumpError of the block as a problem, and continue."""
    try:
        yield
    except TinykdumpError as error:
        problems.append(str(error))


def _key(host: Host, config: Config) -> str:
    if not config.encrypt:
        return ""
    return keys.of_config(host, config.key).fingerprint


def _dumps(host: Host, plugged: Stick | None) -> tuple[Path, ...] | None:
    """The dumps of this machine on the stick, the oldest first; None if it is not mounted.

    Links are not followed.
    """
    if plugged is None or plugged.mounted is None:
        return None
    top = dump.of_machine(plugged.mounted, hardware.machine_name(host))
    if host.resolve(top) != top:
        return ()
    return tuple(
        path
        for path in host.children(top)
        if dump.is_dump(path.name) and host.resolve(path) == path and host.path(path).is_dir()
    )
