# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages to the user, one line each."""

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from tinykdump.errors import TinykdumpError

# Hints for errors of the system.
_HINTS = {
    errno.EACCES: "run it as root",
    errno.EPERM: "run it as root",
    errno.ENOSPC: "free space on that file system",
    errno.EEXIST: "name a new one",
    errno.ENOENT: "check its path",
    errno.ENOTDIR: "check its path",
    errno.EDQUOT: "free space on that file system",
    errno.EROFS: "mount that file system writable",
}


def line(error: TinykdumpError | OSError) -> str:
    """The message for an error; adds a hint to errors of the system."""
    if isinstance(error, TinykdumpError):
        return str(error)
    hint = _HINTS.get(error.errno or 0, "check the disk's space and health")
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error} ({hint})"


def say(text: str) -> None:
    """Print one line on standard error."""
    print(f"tinykdump: {text}", file=sys.stderr, flush=True)


def interruptible() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, so that state is restored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup(1)
            signal.signal(number, signal.default_int_handler)


def legible() -> None:
    """Print what the user's locale cannot encode as escapes: text of a stick can have anything.

    Python does so on standard error, but raises an exception on standard output.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def piped() -> Iterator[None]:
    """End as other programs do, by SIGPIPE, if nobody reads the rest of the output: head(1).

    Python ignores that signal, because a write to a program that has ended must be an error.
    """
    try:
        try:
            yield
        finally:
            print(end="", flush=True)
    except BrokenPipeError:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)
