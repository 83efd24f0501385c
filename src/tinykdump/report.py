# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said to people, in one line each."""

import sys

from tinykdump.errors import TinykdumpError


def line(error: TinykdumpError | OSError) -> str:
    """What is said of an error; the system's own do not say what to do."""
    if isinstance(error, TinykdumpError):
        return str(error)
    hint = (
        "run it as root"
        if isinstance(error, PermissionError)
        else "check the disk's space and health"
    )
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror} ({hint})"


def say(text: str) -> None:
    """One line to whoever waits for a command, or for the transaction that it is part of."""
    print(f"tinykdump: {text}", file=sys.stderr, flush=True)
