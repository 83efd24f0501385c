# SPDX-License-Identifier: GPL-2.0-or-later
"""What the log of a crashed kernel says first. Text in, values out; no I/O here.

Programs can write to that log too, so every text in it can be anybody's.
"""

import re

from tinykdump.text import printable

_LONGEST = 200  # characters

# The time and, where configured, the caller, as makedumpfile writes them before each line.
_PREFIX = r"^(?:\[ *[0-9]{1,10}\.[0-9]{6}\] ?)?(?:\[ *[TC][0-9]{1,10}\] ?)?"

# What a kernel says when it crashes, the most telling first.
_REASONS = tuple(
    re.compile(_PREFIX + reason, re.MULTILINE)
    for reason in (
        r"Kernel panic - not syncing: (.*)",
        r"((?:BUG|Oops|general protection fault|Unable to handle kernel)\b.*)",
    )
)

# "CPU: 0 UID: 0 PID: 1 Comm: sh Tainted: G    E   6.12.1-amd64 #1" in a crash, and the first line.
# All flags with their names have fewer than 600 characters (print_tainted() in the kernel).
_KERNELS = (
    re.compile(r"(?:Not tainted|Tainted: [A-Z =\[\],_]{1,600}?) ([0-9]\S{0,63}) #[0-9]"),
    re.compile(_PREFIX + r"Linux version ([0-9]\S{0,63})", re.MULTILINE),
)


def reason(log: str) -> str:
    """Why the kernel crashed, in one line; empty: the log does not say."""
    for pattern in _REASONS:
        if found := pattern.findall(log):
            return _shown(found[-1])
    return ""


def kernel(log: str) -> str:
    """The version of the kernel that wrote the log; empty: the log does not say."""
    return next((_shown(found[-1]) for each in _KERNELS if (found := each.findall(log))), "")


def _shown(text: str) -> str:
    return printable(text.strip())[:_LONGEST]
