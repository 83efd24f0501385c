# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts other programs; no other module does, except keys.py for gpg."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tinykdump.errors import TinykdumpError

# The search path of programs, and a locale whose messages can be parsed.
ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
}

# mount(8) prints it after the line that says why.
_ADVICE = "dmesg(1) may have more information"


@dataclass(frozen=True)
class Finished:
    """The result of a program: exit status and both outputs."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line of standard error, which is where programs say why they failed."""
        lines = [line for line in self.stderr.strip().splitlines() if _ADVICE not in line]
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


@contextmanager
def started(argv: Sequence[str | Path], errors: Path) -> Iterator[Callable[[], bool]]:
    """Run ``argv`` beside the block, whose end ends it; yields what says whether it still runs.

    Its standard error is written to the file ``errors``. Raises TinykdumpError when it is not
    installed or does not start, OSError.
    """
    words = [str(word) for word in argv]
    with errors.open("wb") as said:
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=said, env=ENVIRONMENT)  # fmt: skip
        except FileNotFoundError:
            raise missing(words[0]) from None
    try:
        yield lambda: process.poll() is None
    finally:
        process.kill()
        process.wait()


def is_installed(program: str) -> bool:
    """Whether run() finds that program."""
    return shutil.which(program, path=ENVIRONMENT["PATH"]) is not None


def missing(program: str) -> TinykdumpError:
    """The error for a program that is not installed."""
    return TinykdumpError(f"{program} is not installed", f"install the package of {program}")
