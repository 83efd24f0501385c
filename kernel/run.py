# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs other programs and prints messages for the user; no other module does."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


class KernelError(Exception):
    """An error that the user can correct; its text is "message (hint)".

    `output` is what a failed program printed.
    """

    def __init__(self, message: str, hint: str = "", *, output: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.output = output
        if output:
            self.add_note(output)  # pytest prints it


def explain(error: KernelError, program: str) -> str:
    """The output of the program that failed, if any, and then the error in one line."""
    errors = [each for each in (error.__cause__, error) if isinstance(each, KernelError)]
    return "\n".join([*(each.output for each in errors if each.output), f"{program}: {error}"])


def say(text: str) -> None:
    print(f"kernel: {text}", file=sys.stderr, flush=True)


# With these, git works in the repository whose hook or "git rebase --exec" started this program,
# whatever directory it is told.
_OTHER_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in _OTHER_REPOSITORY}
    # This program parses apt's output and the compiler's version.
    return {**own, "LC_ALL": "C", **(extra or {})}


def _tail(text: str, lines: int = 30) -> str:
    return "\n".join(text.rstrip().splitlines()[-lines:])


def output(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> str:
    """Run a program and return its output. Raises KernelError with its output if it fails."""
    args = [str(arg) for arg in argv]
    try:
        done = subprocess.run(
            args,
            cwd=cwd,
            env=_environment(env),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise KernelError(
            f"{args[0]} is not installed", "run tools/deps kernel or arm64"
        ) from error
    if done.returncode:
        raise KernelError(
            f"{' '.join(args[:4])} ... failed with status {done.returncode}",
            "see its output",
            output=_tail(done.stdout + done.stderr),
        )
    return done.stdout


def _waits(process: subprocess.Popen[bytes]) -> bool:
    """Wait a second; returns whether the process still runs."""
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        return True
    return False


def logged(
    argv: Sequence[str | Path],
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    watch: Callable[[], None] | None = None,
) -> None:
    """Run a slow program with its output in `log`, and call `watch` every second.

    Raises KernelError with the last lines of the output if it fails.
    """
    args = [str(arg) for arg in argv]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        process = subprocess.Popen(
            args,
            cwd=cwd,
            env=_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        with process:
            while _waits(process):
                if watch:
                    watch()
    if process.returncode:
        raise KernelError(
            f"{args[0]} failed with status {process.returncode}",
            f"see {log}",
            output=_tail(log.read_text(errors="replace")),
        )


@contextmanager
def stopwatch(what: str) -> Iterator[None]:
    """Print the CPU time and the wall time of a step."""
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    yield
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall = time.monotonic() - start
    say(f"{what}: {cpu / 60:.1f} CPU minutes, {wall / 60:.1f} minutes of wall time")
