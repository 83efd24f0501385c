# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a command in a guest, and the two errors of VM tests."""

import shlex
from dataclasses import dataclass

# The last bytes of an output that an exception shows; the result has all of it.
SHOWN = 4000


@dataclass(frozen=True)
class Result:
    argv: tuple[str, ...]
    # As in subprocess: negative for the signal that ended it.
    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    # Measured in the guest, by its clock.
    seconds: float = 0.0
    # Processor time and peak memory of the command and the children that it waited for.
    cpu: float = 0.0
    rss_kib: int = 0
    # Killed because it exceeded its time limit.
    timed_out: bool = False

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")

    def __str__(self) -> str:
        ended = "killed at its time limit" if self.timed_out else f"status {self.status}"
        lines = [f"{shlex.join(self.argv)}: {ended} ({self.seconds:.1f} s)"]
        for name, output in (("stdout", self.stdout), ("stderr", self.stderr)):
            if output:
                text = output.decode(errors="replace").rstrip()
                lines.append(f"--- {name}\n{'[...]' if len(text) > SHOWN else ''}{text[-SHOWN:]}")
        return "\n".join(lines)


# Named after what happened, not "...Error".
class GuestFailed(Exception):  # noqa: N818 - see above
    """A command in the guest failed; the machine still runs."""

    def __init__(self, result: Result) -> None:
        super().__init__(str(result))
        self.result = result


class MachineLost(Exception):  # noqa: N818 - see above
    """The machine ended, restarted or stopped answering, so the state of the guest is unknown."""

    def __init__(self, reason: str, console: str) -> None:
        super().__init__(f"{reason}\n--- end of the console\n{console}")
        self.reason = reason
        self.console = console
