# SPDX-License-Identifier: GPL-2.0-or-later
"""The inputs that fuzzing found, fed to the parsers again."""

import pytest

from tests.fuzzing import corpus, keep
from tests.fuzzing.targets import TARGETS
from tinykdump import config


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_raise_only_documented_errors(name: str) -> None:
    target, _ = TARGETS[name]
    inputs = list(corpus.read(name))
    assert len(inputs) > 1
    for data in inputs:
        target(data)


def test_configuration_to_begin_with_has_every_key() -> None:
    _, (seed,) = TARGETS["ini"]
    assert set(config.parse_file(seed.decode(), "seed")) == {item.key for item in config.ITEMS}


def test_every_archive_belongs_to_a_target() -> None:
    assert {path.stem for path in corpus.KEPT.iterdir()} == set(TARGETS)


def test_smallest_inputs_that_reach_something_new_are_kept() -> None:
    def parser(data: bytes) -> None:
        if data.startswith(b"a"):
            data = data[1:]
        if data.startswith(b"b"):
            data = data[1:]

    inputs = [b"a", b"long", b"b", b"", b"abc", b"a" * (keep.LARGEST + 1)]
    assert keep.smallest(parser, inputs, ["*/test_corpus.py"]) == [b"", b"a", b"b"]
    assert keep.smallest(parser, inputs, ["*/elsewhere.py"]) == []
