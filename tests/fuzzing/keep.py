# SPDX-License-Identifier: GPL-2.0-or-later
"""Chooses which inputs stay in the repository: python -m tests.fuzzing.keep TARGET

It takes those that are kept already and those that fuzzing found, and keeps the smallest ones that
together reach every step of the parsers from one line to another that any of them reaches.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence

import coverage

from tests.fuzzing import corpus
from tests.fuzzing.targets import TARGETS

# Bytes. Larger inputs take too much room in the repository.
LARGEST = 8192

# A step: file, line before, line after.
Step = tuple[str, int, int]


def smallest(
    target: Callable[[bytes], None], inputs: Iterable[bytes], observed: Sequence[str]
) -> list[bytes]:
    """The inputs, small ones first, that reach a step in files of these patterns before others."""
    reached: set[Step] = set()
    chosen = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        found = steps(target, data, observed) if len(data) <= LARGEST else set()
        if not found <= reached:
            reached |= found
            chosen.append(data)
    return chosen


def steps(target: Callable[[bytes], None], data: bytes, observed: Sequence[str]) -> set[Step]:
    """The steps that the target takes with this input, in files of these patterns."""
    observer = coverage.Coverage(
        data_file=None, config_file=False, branch=True, include=observed, messages=False
    )
    observer.set_option("run:disable_warnings", ["no-data-collected"])
    with observer.collect():
        target(data)
    taken = observer.get_data()
    return {(path, *step) for path in taken.measured_files() for step in taken.arcs(path) or ()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing.keep", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    name = parser.parse_args().target
    target, seeds = TARGETS[name]
    kept = list(corpus.read(name))
    found = [path.read_bytes() for path in (corpus.FOUND / name / "corpus").glob("*")]
    patterns = [f"*/{package}/*" for package in corpus.OBSERVED]
    chosen = smallest(target, [*seeds, *kept, *found], patterns)
    corpus.write(name, chosen)
    size = corpus.archive(name).stat().st_size
    print(f"{name}: {len(chosen)} of {len(kept) + len(found)} inputs are kept in {size} bytes")


if __name__ == "__main__":
    main()
