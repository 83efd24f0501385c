# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses and merges configuration fragments, and compares them with a .config. Pure."""

import re
from collections.abc import Iterable, Mapping

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
    """Merge fragments; later ones win, as with the kernel's merge_config.sh."""
    merged: dict[str, str] = {}
    for fragment in fragments:
        merged.update(parse(fragment))
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
