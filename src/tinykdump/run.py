# SPDX-License-Identifier: GPL-2.0-or-later
"""The one door through which other programs are started."""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from tinykdump.errors import TinykdumpError

# Programs are found here and nowhere else, and speak English that can be parsed.
ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
}


@dataclass(frozen=True)
class Finished:
    """What a program left behind: exit status and both outputs."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line of standard error, which is where programs say why they failed."""
        lines = self.stderr.strip().splitlines()
        return lines[-1] if lines else "no message"


def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes = b"",
    cwd: Path | None = None,
    check: bool = True,
    hint: str = "see the message",
) -> Finished:
    """Run ``argv`` to its end; never through a shell.

    Raises TinykdumpError when the program is not installed or does not start and, with
    ``check``, when its exit status is not 0.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            cwd=cwd,
            env=ENVIRONMENT,
            check=False,
        )
    except FileNotFoundError:
        raise missing(words[0]) from None
    except OSError as error:
        raise TinykdumpError(f"{words[0]} does not start: {error.strerror}", hint) from None
    result = Finished(done.returncode, done.stdout, done.stderr.decode(errors="replace"))
    if check and result.status != 0:
        raise TinykdumpError(f"{words[0]} failed: {result.last_line}", hint)
    return result


class Filter:
    """A program that is fed through its standard input, for streams of any length."""

    def __init__(self, argv: Sequence[str | Path]) -> None:
        """Start it. Raises TinykdumpError when it is not installed."""
        words = [str(word) for word in argv]
        self._name = words[0]
        # Into a file: a pipe that nobody reads would stop a talkative program.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the program
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=self._errors,
                stderr=self._errors,
                env=ENVIRONMENT,
            )
        except FileNotFoundError:
            raise missing(words[0]) from None

    def write(self, data: bytes) -> int:
        """Feed it. Raises OSError when it has ended."""
        return cast(IO[bytes], self._process.stdin).write(data)

    def finish(self, hint: str) -> None:
        """End its input and wait. Raises TinykdumpError when it failed."""
        with suppress(BrokenPipeError):
            cast(IO[bytes], self._process.stdin).close()
        status = self._process.wait()
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        if status != 0:
            raise TinykdumpError(
                f"{self._name} failed: {Finished(status, b'', text).last_line}", hint
            )

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()


def missing(program: str) -> TinykdumpError:
    """The error for a program that is not installed."""
    return TinykdumpError(f"{program} is not installed", f"install the package of {program}")
