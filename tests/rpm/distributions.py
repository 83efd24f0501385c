# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of what tinykdump needs, by distribution."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Need:
    package: str
    file: str  # a path, or the name of a Python module
    version: str = ""  # one that the distribution has
    recommended: bool = False  # only, not required


@dataclass(frozen=True)
class Distribution:
    needs: dict[str, Need]
    # Packages that are required without being named.
    automatic: frozenset[str]
    dist: str  # rpm's %dist

    @property
    def packages(self) -> set[str]:
        """Those that are required."""
        return {need.package for need in self.needs.values() if not need.recommended}

    @property
    def recommended(self) -> set[str]:
        return {need.package for need in self.needs.values()} - self.packages


def _read(table: dict[str, Any]) -> Distribution:
    needs = {name: Need(**need) for name, need in table["needs"].items()}
    return Distribution(needs, frozenset(table["automatic"]), table.get("dist", ""))


ALL = {
    name: _read(table)
    for name, table in tomllib.loads(
        Path(__file__).with_suffix(".toml").read_text(encoding="ascii")
    ).items()
}
# Those with rpm.
RPM = {name: each for name, each in ALL.items() if name != "debian"}
