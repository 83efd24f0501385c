# SPDX-License-Identifier: GPL-2.0-or-later
"""A row of the fault matrix, and the result of its run, as values. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.vmtest.machine import XHCI, Controller

if TYPE_CHECKING:
    from tests.faults.bench import Bench

Group = Literal["stick", "crash-kernel", "system-kernel", "service", "hostile", "endurance"]
# good: the person gets what the row promises; bad: something else; lost: the machine ended or hung
# in another way than the row expects; not here: the row cannot run on this machine.
Verdict = Literal["good", "bad", "lost", "not here"]
# Debian's kernel with crashkernel=, or the kernel of kernel/ without it.
Kernel = Literal["stock", "patched"]

# Does what the row says, and returns what the person gets. Raises AssertionError.
Check = Callable[["Bench"], str]


@dataclass(frozen=True)
class Shape:
    """What the machine of a row is made of; rows of the same shape start from one snapshot."""

    cpus: int = 1
    # The least for which kernel/ sets an area aside: the dumps are small, and many.
    memory_mib: int = 512
    # Further parameters of its kernel.
    append: tuple[str, ...] = ()
    # Where sticks can be plugged in.
    controllers: tuple[Controller, ...] = (XHCI,)
    # Further arguments for QEMU.
    arguments: tuple[str, ...] = ()
    # Seconds of CPU time after which QEMU is killed.
    lifetime: int = 3600


PLAIN = Shape()


@dataclass(frozen=True)
class Scenario:
    """What is done to an armed machine, and what the person must get."""

    group: Group
    name: str
    done: str
    wanted: str
    check: Check | None = None
    # Why it cannot run here; it has a check, or else a reason.
    reason: str = ""
    shape: Shape = PLAIN
    # Empty: any kernel will do.
    kernel: Kernel | Literal[""] = ""
    # Whether make check runs it, too.
    in_check: bool = False
    # Whether it takes so long that only its name runs it.
    by_name: bool = False

    def __post_init__(self) -> None:
        if (self.check is None) == (not self.reason):
            raise ValueError(f"{self.id} has a check and a reason, or neither")

    @property
    def id(self) -> str:
        return f"{self.group}/{self.name}"

    def matches(self, pattern: str) -> bool:
        """Whether a word of the command line means this row: its group, or its id."""
        return pattern in (self.group, self.id)


@dataclass(frozen=True)
class Result:
    """What a run of a row came to."""

    id: str
    date: str  # YYYY-MM-DD, UTC
    kernel: str  # stock, patched, or empty if it did not run
    seconds: float  # from the crash to the final action, or of the whole row if nothing crashes
    verdict: Verdict
    gets: str  # what the person gets, or why the row did not run
