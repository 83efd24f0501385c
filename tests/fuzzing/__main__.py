# SPDX-License-Identifier: GPL-2.0-or-later
"""Feeds a parser mutated input for as long as you like: python -m tests.fuzzing TARGET [SECONDS]

atheris changes the input by what the code does with it (libFuzzer). It is not a test of make
check, because it ends only when time is up: pip install atheris. A target fails when it raises
anything but the error that it documents, takes 100 seconds, or 1.5 GiB. What fails is kept in
build/fuzzing/TARGET, and belongs into the unit test of that module.

With --keep, it runs nothing, but adds the smallest inputs that were found to those in the
repository, which make check feeds to the parsers.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzzing import corpus

OUTPUT = Path(__file__).parents[2] / "build/fuzzing"
# What is observed: our code, and the library that reads ELF.
PACKAGES = ("tinykdump", "elftools")

# The parser, and inputs to begin with.
Target = tuple[Callable[[bytes], None], list[bytes]]


def fuzz(name: str, seconds: int) -> None:
    """Run atheris, which ends the process."""
    import atheris  # noqa: PLC0415 - the kept inputs are chosen without it

    with atheris.instrument_imports(include=list(PACKAGES)):
        from tests.fuzzing.targets import TARGETS  # noqa: PLC0415 - changed while it is imported
    target, seeds = known(TARGETS, name)
    directory = OUTPUT / name / "corpus"
    directory.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate([*seeds, *corpus.read(name)]):
        (directory / f"kept-{number}").write_bytes(data)
    limits = ["-timeout=100", "-rss_limit_mb=1536", "-max_len=20000", "-verbosity=1"]
    atheris.Setup([sys.argv[0], str(directory), f"-max_total_time={seconds}",
                   f"-artifact_prefix={OUTPUT / name}/", *limits], target)  # fmt: skip
    atheris.Fuzz()


def known(targets: Mapping[str, Target], name: str) -> Target:
    """The target of that name; ends the process if there is none."""
    if name not in targets:
        sys.exit(f"fuzzing: there is no target {name} (there are: {', '.join(targets)})")
    return targets[name]


def keep(name: str) -> None:
    """Choose what is kept, from what is kept and what was found."""
    from tests.fuzzing.targets import TARGETS  # noqa: PLC0415 - atheris has to import it first

    target, seeds = known(TARGETS, name)
    kept = list(corpus.read(name))
    found = [path.read_bytes() for path in (OUTPUT / name / "corpus").glob("*")]
    paths = tuple(f"/{package}/" for package in PACKAGES)
    chosen = corpus.smallest(target, [*seeds, *kept, *found], paths)
    corpus.write(name, chosen)
    size = corpus.archive(name).stat().st_size
    print(f"{name}: {len(chosen)} of {len(kept) + len(found)} inputs are kept in {size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzzing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", metavar="TARGET", help="a parser of targets.py")
    parser.add_argument("seconds", metavar="SECONDS", nargs="?", type=int, default=600)
    parser.add_argument("--keep", action="store_true", help="only choose what is kept")
    options = parser.parse_args()
    if options.keep:
        keep(options.target)
    else:
        fuzz(options.target, options.seconds)


if __name__ == "__main__":
    main()
