# SPDX-License-Identifier: GPL-2.0-or-later
"""The inputs that fuzzing found: all in build/fuzzing, some in tests/fuzzing/corpus/TARGET.zip.

No script can make those again: it took atheris hours to find them.
"""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

FOUND = Path(__file__).parents[2] / "build/fuzzing"
KEPT = Path(__file__).parent / "corpus"
# Our code, and the library that reads ELF: inputs differ in what they reach there.
OBSERVED = ("tinykdump", "elftools")
# The same date in each archive, so that the same inputs give the same file.
DATE = (1980, 1, 1, 0, 0, 0)


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
    with zipfile.ZipFile(archive(target), "w") as kept:
        for number, data in enumerate(inputs):
            kept.writestr(zipfile.ZipInfo(f"{number:04}", DATE), data, zipfile.ZIP_DEFLATED)
