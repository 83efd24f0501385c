# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses and merges configuration fragments, and compares them with a .config.

    python3 -m kernel.kconfig BASE RESULT FRAGMENT...

prints what RESULT, merged from BASE and the fragments, has less of than BASE; the spec calls it.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

_SET = re.compile(r"(CONFIG_\w+)=(.*)")
_UNSET = re.compile(r"# (CONFIG_\w+) is not set")


def parse(text: str) -> dict[str, str]:
    """Option -> value of a fragment or a .config; "n" for an option that is "not set"."""
    options: dict[str, str] = {}
    for line in text.splitlines():
        if match := _SET.fullmatch(line.strip()):
            options[match[1]] = match[2]
        elif match := _UNSET.fullmatch(line.strip()):
            options[match[1]] = "n"
    return options


def merge(fragments: Iterable[str]) -> dict[str, str]:
    """Merge fragments as the kernel's merge_config.sh -y does.

    Later ones win, but what is built in does not become a module.
    """
    merged: dict[str, str] = {}
    for fragment in fragments:
        for name, value in parse(fragment).items():
            if (merged.get(name), value) != ("y", "m"):
                merged[name] = value
    return merged


def render(options: Mapping[str, str]) -> str:
    return "".join(
        f"# {name} is not set\n" if value == "n" else f"{name}={value}\n"
        for name, value in sorted(options.items())
    )


def unmet(wanted: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """A line for each option that Kconfig did not set as wanted, for example because of a typo."""
    return [
        f"{name}: wanted {value}, got {got.get(name, 'n')}"
        for name, value in sorted(wanted.items())
        if got.get(name, "n") != value
    ]


_RANK = {"n": 0, "m": 1, "y": 2}


def weaker(base: Mapping[str, str], got: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """A line for each option of ``base`` that is off or a module in ``got``, and was more before.

    Not those that ``wanted`` turns off on purpose. An option that ``got`` does not name is one that
    this kernel does not have, or needs another one, for which there is a line.
    """
    return [
        f"{name}: {value} became {got[name]}"
        for name, value in sorted(base.items())
        if name in got
        and got[name] in _RANK
        and _RANK.get(value, 0) > _RANK[got[name]]
        and wanted.get(name) != "n"
    ]


def main(names: list[str]) -> int:
    """Print what is weaker; returns whether something is."""
    base, got, *fragments = (Path(name).read_text() for name in names)
    lines = weaker(parse(base), parse(got), merge(fragments))
    for line in lines:
        print(line, file=sys.stderr)
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
