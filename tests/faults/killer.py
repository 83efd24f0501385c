# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs tinykdump, and kills it with SIGKILL at its N-th step: killer.py N PART ARGUMENT...

A step is the first time that a place in tinykdump changes a file or starts a program. Python's
audit hooks report that before it happens (sys.addaudithook). PART is a module whose steps count,
such as load.py with all that it calls; "all" counts every step. Prints the place. Needs only
Python: the rows put this file into guests.
"""

import os
import runpy
import signal
import sys

CHANGES = frozenset({
    "fcntl.flock", "os.chmod", "os.link", "os.mkdir", "os.posix_spawn", "os.remove", "os.rename",
    "os.rmdir", "os.symlink", "os.truncate", "subprocess.Popen",
})  # fmt: skip


class Killer:
    def __init__(self, at: int, part: str) -> None:
        self.at = at
        self.part = part
        self.seen: set[tuple[str, ...]] = set()

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not _changes(event, arguments):
            return
        place = _place()
        counts = self.part == "all" or any(each.startswith(self.part) for each in place)
        if not place or not counts or place in self.seen:
            return
        self.seen.add(place)
        if len(self.seen) == self.at:
            print(f"{event} {' '.join(place)}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


def _changes(event: str, arguments: tuple[object, ...]) -> bool:
    if event != "open":
        return event in CHANGES
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _place() -> tuple[str, ...]:
    """The lines of tinykdump that are being run, the innermost first."""
    frame, found = sys._getframe(2), []
    while frame.f_back:
        _, package, module = frame.f_code.co_filename.rpartition("/tinykdump/")
        if package:
            found.append(f"{module}:{frame.f_lineno}")
        frame = frame.f_back
    return tuple(found)


if __name__ == "__main__":
    sys.addaudithook(Killer(int(sys.argv[1]), sys.argv[2]))
    sys.argv = ["tinykdump", *sys.argv[3:]]
    runpy.run_module("tinykdump", run_name="__main__", alter_sys=True)
