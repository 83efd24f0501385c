# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a vmcore with drgn, as far as its symbols and its own state allow."""

import datetime
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from tinykdump import debuginfo, vmcoreinfo
from tinykdump.dump import LOG, STREAMS
from tinykdump.errors import TinykdumpError
from tinykdump.text import short
from tinykdump.vmcore import log, pages, ringbuffer
from tinykdump.vmcore.facts import Facts, Record, Task
from tinykdump.vmcoreinfo import Info

if TYPE_CHECKING:
    from drgn import Program

Value = TypeVar("Value")

# What is not read within so many seconds is left out: a forged vmcore can be slow to read.
_LIMIT = 60

_LARGEST_LOG = 16 << 20  # bytes

# struct new_utsname: each field has 65 bytes, and the host name is the second one.
_NAME = 65


class Reading:
    """Collects the facts that can be read, and the reasons for the others."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def take(self, what: str, read: Callable[[], Value], otherwise: Value) -> Value:
        """What ``read`` returns; if it fails, ``otherwise``, and a note."""
        try:
            with _limit():
                return read()
        except TimeoutError:
            self.missing.append(f"{what}: not read within {_LIMIT} s")
        except Exception as error:  # drgn raises any, also Exception itself
            self.missing.append(f"{what}: {short(str(error) or type(error).__name__, 200)}")
        return otherwise


@contextmanager
def _limit() -> Iterator[None]:
    """Raise TimeoutError in the block after ``_LIMIT`` seconds."""

    def expire(_number: int, _frame: object) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expire)
    signal.alarm(_LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def read(vmcore: Path, symbols: Sequence[Path] = ()) -> Facts:
    """What is in a vmcore; ``symbols`` are files with symbols, otherwise drgn looks for them.

    Raises TinykdumpError if it is no vmcore or drgn is not installed, OSError.
    """
    for path in symbols:  # drgn ignores files that are missing
        path.stat()
    info = _info(vmcore)
    program = _open(vmcore)
    reading = Reading()
    facts = _without_symbols(program, info, vmcore, reading)
    try:
        _load(program, symbols)
    except Exception:  # drgn raises any, also Exception itself
        command = debuginfo.package(info.release)
        how = f"; {command}" if command else ""
        reading.missing.append(
            f"backtraces with lines of source, tasks, run queues, memory by the kernel's counters: "
            f"no symbols of kernel {facts.release or 'unknown'} (build ID "
            f"{facts.build_id or 'unknown'}{how})"
        )
    else:
        facts = _with_symbols(program, facts, reading)
    if not facts.memory.kinds:
        memory = reading.take("memory by kind", lambda: pages.by_kind(info, _reader(program)),
                              facts.memory)  # fmt: skip
        facts = replace(facts, memory=memory)
    return replace(facts, missing=tuple(reading.missing))


def _info(vmcore: Path) -> Info:
    descriptor = os.open(vmcore, os.O_RDONLY | os.O_NONBLOCK)
    try:
        info = vmcoreinfo.find(lambda at, size: os.pread(descriptor, size, at))
    except OSError as error:  # a directory or a pipe
        raise TinykdumpError(f"{vmcore}: {error.strerror}", "name a vmcore") from None
    finally:
        os.close(descriptor)
    if info is None:
        raise TinykdumpError(f"{vmcore} is no vmcore", "name a file that restore has written")
    return info


def _open(vmcore: Path) -> "Program":
    drgn = _drgn()
    logging.getLogger("drgn").disabled = True  # what it cannot find is reported below
    program = drgn.Program()
    try:
        program.set_core_dump(vmcore)
    except Exception as error:  # drgn raises any, also Exception itself
        raise TinykdumpError(f"drgn cannot read {vmcore}: {short(str(error), 200)}",
                             "restore it again") from None  # fmt: skip
    return program


def _drgn() -> ModuleType:
    """The module drgn. Raises TinykdumpError if it is not installed."""
    try:
        import drgn  # noqa: PLC0415 - only report needs it, and it may be missing
    except ImportError:
        hint = "install drgn (Fedora) or python3-drgn (Debian)"
        raise TinykdumpError("drgn is not installed", hint) from None
    return drgn


def _load(program: "Program", symbols: Sequence[Path]) -> None:
    """Load the symbols of the kernel, and of the modules where they are. Raises as drgn does."""
    if symbols:
        program.load_debug_info([str(path) for path in symbols])
        # drgn takes no file of another kernel; whether it took this one, its modules tell.
    program.load_debug_info(main=True)
    with suppress(_drgn().MissingDebugInfoError):
        program.load_debug_info(default=True)


def _reader(program: "Program") -> Callable[[int, int], bytes]:
    """Reads memory; drgn's FaultError becomes a ValueError."""
    fault: type[Exception] = _drgn().FaultError

    def read_memory(address: int, size: int) -> bytes:
        try:
            return bytes(program.read(address, size))
        except fault as error:
            raise ValueError(str(error)) from None

    return read_memory


def _saved_log(vmcore: Path) -> tuple[Record, ...]:
    """The log that restore has written beside a vmcore. Raises OSError."""
    with vmcore.with_name(STREAMS[LOG]).open("rb") as file:
        return log.parse(file.read(_LARGEST_LOG))


def _without_symbols(program: "Program", info: Info, vmcore: Path, reading: Reading) -> Facts:
    memory = _reader(program)
    none: tuple[Record, ...] = ()
    lines = reading.take("the log", lambda: ringbuffer.records(info, memory), none)
    if not lines:  # the crash kernel saved it first
        lines = reading.take("the log from vmcore-dmesg.txt", lambda: _saved_log(vmcore), none)
    time = info.number("CRASHTIME")
    return Facts(
        vmcore=short(str(vmcore), 4096),
        release=info.release,
        build_id=info.build_id,
        host=reading.take("the host name", lambda: _host(info, memory), ""),
        crashed=_date(time) if time else "",
        uptime=lines[-1].seconds if lines else 0.0,
        reason=log.reason(lines),
        taint=log.taint(lines) or "",
        modules=log.modules(lines),
        log=lines,
        crashing=log.crashing(lines),
    )


def _host(info: Info, read_memory: Callable[[int, int], bytes]) -> str:
    place, offset = info.number("SYMBOL(init_uts_ns)"), info.number("OFFSET(uts_namespace.name)")
    if place is None or offset is None:
        raise ValueError("vmcoreinfo does not say where it is")
    return short(read_memory(place + offset + _NAME, _NAME).partition(b"\0")[0], _NAME)


def _date(seconds: int) -> str:
    try:
        return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return ""


def _with_symbols(program: "Program", facts: Facts, reading: Reading) -> Facts:
    try:
        from tinykdump.vmcore import symbols  # noqa: PLC0415 - it imports drgn
    except ImportError as error:
        reading.missing.append(f"all that needs symbols: drgn is too old: {error}")
        return facts
    none: tuple[int, tuple[Task, ...], tuple[Task, ...]] = (0, (), ())
    count, top, blocked = reading.take(
        "tasks", lambda: symbols.tasks(program, reading.missing.append), none
    )
    return replace(
        facts,
        crashing=reading.take("the crashing task", lambda: symbols.crashing(program),
                              facts.crashing),
        taint=reading.take("taint", lambda: symbols.taint(program), facts.taint),
        modules=reading.take("modules", lambda: symbols.modules(program), facts.modules),
        memory=reading.take("memory by the kernel's counters", lambda: symbols.memory(program),
                            facts.memory),
        tasks=count, top=top, blocked=blocked,
        queues=reading.take("run queues", lambda: symbols.queues(program), ()),
    )  # fmt: skip
