# SPDX-License-Identifier: GPL-2.0-or-later
"""What a report shows. All texts in here are printable."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """A line of the kernel's log."""

    seconds: float  # since the kernel was started
    level: int  # 0 (emergency) to 7 (debug), as in syslog(2)
    text: str


@dataclass(frozen=True)
class Task:
    """A task of the crashed kernel, with the innermost function first."""

    pid: int
    name: str
    state: str  # a letter as in ps(1); empty: not known
    memory: int  # resident bytes
    cpu: int
    stack: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """What a part of the memory was used for."""

    name: str
    size: int  # bytes


@dataclass(frozen=True)
class Queue:
    """What a processor ran and had still to run."""

    cpu: int
    running: str
    length: int  # tasks that could run, with the running one
    waiting: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """The memory by kind, and how that was found out."""

    kinds: tuple[Kind, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Facts:
    """All that is known of a crash. What could not be read is empty, and ``missing`` says why."""

    vmcore: str
    release: str = ""
    build_id: str = ""
    host: str = ""
    crashed: str = ""  # date and time, UTC
    uptime: float = 0.0  # seconds; 0: not known
    reason: str = ""
    taint: str = ""
    modules: tuple[str, ...] = ()
    log: tuple[Record, ...] = ()
    crashing: Task | None = None
    memory: Memory = Memory()
    tasks: int = 0  # how many there were
    top: tuple[Task, ...] = ()  # those with the most memory
    blocked: tuple[Task, ...] = ()  # those in uninterruptible sleep
    queues: tuple[Queue, ...] = ()
    missing: tuple[str, ...] = ()  # sentences
