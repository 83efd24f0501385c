# SPDX-License-Identifier: GPL-2.0-or-later
"""Crashes this machine on purpose, and finds out afterwards whether the dump came out on the stick.

An id goes to the kernel's log and to a note. The crash kernel finds it in the log that it saves,
and writes it to its own log and to the file TEST of the dump (src/crash/dump.sh).
"""

import json
import os
import secrets
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from tinykdump import dump, dumps, files, load, parts, pstore, state, stick
from tinykdump.clock import local
from tinykdump.config import Config
from tinykdump.crashlog import CrashLog
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.status import Trial
from tinykdump.stick import Stick

NOTE = state.STATE / "test.json"

_KMSG = Path("/dev/kmsg")
# Root may use it whatever kernel.sysrq says (Documentation/admin-guide/sysrq.rst).
_SYSRQ = Path("/proc/sysrq-trigger")
_DEVKMSG = Path("/proc/sys/kernel/printk_devkmsg")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# The crash kernel takes its time from there, as UTC; the system's time can be another one.
_CLOCK = Path("/sys/class/rtc/rtc0/since_epoch")

_DAY = 86400  # seconds; a test that took longer was timed by a clock that changed


@dataclass(frozen=True)
class _Note:
    """What has to be known after the reboot."""

    trial: Trial
    boot: str  # of the machine that crashed
    clock: int  # seconds since 1970 by the machine's own clock
    target: str  # the dump target of the image that was loaded
    stick: str  # the UUID of the stick's file system


def find_stick(host: Host) -> tuple[Stick, str]:
    """The stick that a dump would go to, and the dump target that it has.

    Raises TinykdumpError if this machine is not armed, or if the crash kernel could not use it.
    """
    image = load.ours(host)
    if image is None:
        raise TinykdumpError("this machine is not armed", "tinykdump status says what to do")
    found = stick.find(host, image.target)
    if not found:
        raise TinykdumpError(f"no stick with {image.target} is plugged in",
                             "plug it in, or make one with tinykdump prepare")  # fmt: skip
    # The size of a dump is only an upper limit: whether it fits, the test shows.
    for problem in stick.problems(found, image.target, image.filesystems, 0):
        raise problem
    return found[0], image.target


def warning(config: Config, found: Stick) -> str:
    """What will happen, for the user."""
    end = {"reboot": "It then reboots", "poweroff": "It then powers off", "halt": "It then halts"}
    return (
        "This machine crashes at once: all programs stop without warning, and what they have not "
        f"saved is lost. The crash kernel saves a dump to {found.device}. "
        f"{end[config.final_action]}; afterwards, tinykdump status says what came of it."
    )


def crash_now(host: Host, found: Stick, target: str) -> None:
    """Write an id to the log and to the note, sync the file systems, and crash the machine.

    The loaded image has the dump target ``target``, which the stick has. Never returns. Raises
    TinykdumpError if the kernel cannot keep the id or did not crash, OSError.
    """
    if not host.exists(_SYSRQ):
        raise TinykdumpError(f"there is no {_SYSRQ}", "run a kernel with CONFIG_MAGIC_SYSRQ")
    if host.text(_DEVKMSG) == "off":
        raise TinykdumpError("this kernel lets no program write to its log",
                             "remove printk.devkmsg=off from the kernel command line")  # fmt: skip
    now = time.time()
    trial = Trial(id=secrets.token_hex(8), time=local(now), came_out=None, seconds=None, result="")
    try:
        uuid = _uuid(host, found)
        _write(host, _Note(trial, host.text(_BOOT) or "", _clock(host, now), target, uuid))
        host.write(_KMSG, f"<5>tinykdump: test {trial.id}\n")
        os.sync()
        host.write(_SYSRQ, "c")
    finally:
        host.path(NOTE).unlink(missing_ok=True)
    raise TinykdumpError("the kernel did not crash", "see dmesg")


def _uuid(host: Host, each: Stick) -> str:
    return stick.probe(host, each.device).get("UUID", "")


def _clock(host: Host, now: float) -> int:
    text = host.text(_CLOCK) or ""
    return int(text) if text.isdecimal() else int(now)


def last(host: Host) -> Trial | None:
    """The last test before this boot; None if there was none."""
    note = _read(host)
    return note.trial if note and note.boot != host.text(_BOOT) else None


def problem(trial: Trial | None) -> str:
    """What is wrong with the last test, in one line; empty: nothing."""
    if trial is None or trial.came_out:
        return ""
    if trial.came_out is None:
        return (f"whether the test of {trial.when()} came out is not known (plug in its stick and "
                "run tinykdump status)")  # fmt: skip
    return (f"the test of {trial.when()} did not come out: {trial.result} (see tinykdump log, and "
            "run tinykdump test again)")  # fmt: skip


def is_settled(host: Host) -> bool:
    """Whether nothing is left to find out."""
    tested = last(host)
    return tested is None or tested.came_out is not None


def settle(host: Host) -> None:
    """Find out, and note, what came of the last test; if nothing tells so far, change nothing.

    A stick that is not mounted is mounted read-only, where only root can enter. The crash kernel
    takes any stick with the target's tag, but only the one of the test tells that nothing came
    out. One that cannot be mounted does not hide what the others and the log tell. Raises
    TinykdumpError or OSError.
    """
    note = _read(host)
    if note is None or is_settled(host):
        return
    log = _log(host, note.trial)
    looked: list[Stick] = []
    failures: list[TinykdumpError] = []
    for each in dumps.sticks(host, note.target):
        try:
            with dumps.readable(host, each) as place:
                settled = _on(place, note, log)
        except TinykdumpError as error:
            failures.append(error)
            continue
        if settled:
            _write(host, replace(note, trial=settled))
            return
        looked.append(each)
    if log is not None:
        result = f"{log.verdict}, as the crash kernel's log says" if log.saved else log.verdict
        _write(host, replace(note, trial=replace(note.trial, came_out=log.saved, result=result)))
    elif any(_uuid(host, each) == note.stick for each in looked):
        result = "no dump on the stick has its id"
        _write(host, replace(note, trial=replace(note.trial, came_out=False, result=result)))
    elif failures:
        raise failures[0]


def _log(host: Host, trial: Trial) -> CrashLog | None:
    """The crash kernel's log of a test: one that has its id, or that is of the boot of the test."""
    boots = pstore.boots(host)
    log = pstore.crash_log(host, boots)
    if log is None:
        return None
    of_that_boot = boots.previous is not None and boots.previous <= trial.time.timestamp()
    is_its = of_that_boot and log.ended_previous(boots) and not log.saved
    return log if f"test {trial.id}" in log.stages or is_its else None


def _on(place: Path, note: _Note, log: CrashLog | None) -> Trial | None:
    """What a stick tells of a test; None: nothing.

    No other dump has the id, whatever the machine is called there: without /etc/machine-id, it has
    another name after each boot.
    """
    for saved in reversed(dumps.on(place)):
        found = parts.test(saved.directory)
        if found is None or found[0] != note.trial.id:
            continue
        took = (found[1] or 0) - note.clock
        if saved.complete:
            return replace(
                note.trial, came_out=True, seconds=took if 0 <= took < _DAY else None,
                result=f"saved as {dump.TOP}/{saved.machine}/{saved.name}",
            )  # fmt: skip
        reason = log.verdict if log else "the dump is not complete"
        return replace(note.trial, came_out=False, result=reason)
    return None


def _read(host: Host) -> _Note | None:
    """The note, or None if there is none that can be read."""
    try:
        found = json.loads(host.text(NOTE) or "")
        values = found["trial"]
        trial = Trial(
            id=str(values["id"]), time=datetime.fromisoformat(values["time"]).astimezone(),
            came_out=None if values["came_out"] is None else values["came_out"] is True,
            seconds=None if values["seconds"] is None else int(values["seconds"]),
            result=str(values["result"]),
        )  # fmt: skip
        return _Note(trial, str(found["boot"]), int(found["clock"]), str(found["target"]),
                     str(found["stick"]))  # fmt: skip
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _write(host: Host, note: _Note) -> None:
    text = json.dumps(asdict(note), default=datetime.isoformat)
    files.publish({host.path(NOTE): text.encode()})
