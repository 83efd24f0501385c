# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said to people, in one line each."""

import errno
import signal
import sys

from tinykdump.errors import TinykdumpError

# What to do about errors of the system.
_HINTS = {
    errno.EACCES: "run it as root",
    errno.EPERM: "run it as root",
    errno.ENOSPC: "free space on that file system",
    errno.EDQUOT: "free space on that file system",
    errno.EROFS: "mount that file system writable",
}


def line(error: TinykdumpError | OSError) -> str:
    """What is said of an error; the system's own do not say what to do."""
    if isinstance(error, TinykdumpError):
        return str(error)
    hint = _HINTS.get(error.errno or 0, "check the disk's space and health")
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error} ({hint})"


def say(text: str) -> None:
    """One line to whoever waits for a command, or for the transaction that it is part of."""
    print(f"tinykdump: {text}", file=sys.stderr, flush=True)


def interruptible() -> None:
    """Let a closed terminal and kill(1) be what Ctrl-C is: a reason to put things back first."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup(1)
            signal.signal(number, signal.default_int_handler)
