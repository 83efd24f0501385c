# SPDX-License-Identifier: GPL-2.0-or-later
"""The inputs that are kept in the repository: tests/fuzzing/corpus/TARGET.zip.

Atheris finds thousands of inputs in hours. Kept are the smallest ones that together reach every
step of the parsers from one line to another that any of them reaches.
"""

import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

KEPT = Path(__file__).parent / "corpus"
# Bytes. Larger inputs take room in the repository, and reach little that smaller ones do not.
LARGEST = 8192
# The same date in each archive, so that the same inputs give the same file.
DATE = (1980, 1, 1, 0, 0, 0)

# A step: file, line before, line after.
Step = tuple[str, int, int]


def archive(target: str) -> Path:
    """The file with the kept inputs of a target."""
    return KEPT / f"{target}.zip"


def read(target: str) -> Iterator[bytes]:
    """The kept inputs of a target; none of a new one. Raises OSError and zipfile.BadZipFile."""
    if not archive(target).exists():
        return
    with zipfile.ZipFile(archive(target)) as kept:
        for name in kept.namelist():
            yield kept.read(name)


def write(target: str, inputs: Iterable[bytes]) -> None:
    """Replace the kept inputs of a target. Raises OSError."""
    KEPT.mkdir(exist_ok=True)
    with zipfile.ZipFile(archive(target), "w", zipfile.ZIP_DEFLATED) as kept:
        for number, data in enumerate(inputs):
            kept.writestr(zipfile.ZipInfo(f"{number:04}", DATE), data, zipfile.ZIP_DEFLATED)


def smallest(
    target: Callable[[bytes], None], inputs: Iterable[bytes], names: tuple[str, ...]
) -> list[bytes]:
    """The inputs, small ones first, that reach a step which none before them reached.

    Only files whose path contains one of the names count.
    """
    reached: set[Step] = set()
    chosen = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        found = steps(target, data, names) if len(data) <= LARGEST else set()
        if not found <= reached:
            reached |= found
            chosen.append(data)
    return chosen


def steps(target: Callable[[bytes], None], data: bytes, names: tuple[str, ...]) -> set[Step]:
    """The steps that the target takes with this input."""
    found: set[Step] = set()

    def called(frame: FrameType, _event: str, _argument: Any) -> Any:
        path, before = frame.f_code.co_filename, frame.f_lineno
        if not any(name in path for name in names):
            return None

        def traced(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal before
            if event == "line":
                found.add((path, before, frame.f_lineno))
                before = frame.f_lineno
            return traced

        return traced

    earlier = sys.gettrace()
    sys.settrace(called)
    try:
        target(data)
    finally:
        sys.settrace(earlier)
    return found
