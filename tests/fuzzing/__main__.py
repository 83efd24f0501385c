# SPDX-License-Identifier: GPL-2.0-or-later
"""Feeds a parser mutated input for as long as you like: python -m tests.fuzzing TARGET [SECONDS]

atheris changes the input by what the code does with it (libFuzzer). It is not a test of make
check, because it ends only when time is up: pip install atheris. A target fails when it raises
anything but the error that it documents, takes 100 seconds, or 1.5 GiB. What fails is kept in
build/fuzzing/TARGET, and belongs into the unit test of that module.

tests/fuzzing/keep.py chooses which of the inputs that were found stay in the repository.
"""

import argparse
import sys

import atheris

from tests.fuzzing import corpus

# atheris observes what is imported here.
with atheris.instrument_imports(include=list(corpus.OBSERVED)):
    from tests.fuzzing.targets import TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("seconds", nargs="?", type=int, default=600)
    options = parser.parse_args()
    target, seeds = TARGETS[options.target]
    place = corpus.FOUND / options.target
    directory = place / "corpus"
    directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate([*seeds, *corpus.read(options.target)]):
        (directory / f"kept-{number}").write_bytes(data)
    limits = ["-timeout=100", "-rss_limit_mb=1536", "-max_len=20000", "-verbosity=1"]
    atheris.Setup([sys.argv[0], str(directory), f"-max_total_time={options.seconds}",
                   f"-artifact_prefix={place}/", *limits], target)  # fmt: skip
    atheris.Fuzz()


if __name__ == "__main__":
    main()
