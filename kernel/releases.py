# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads releases.toml, the table of the kernels that the series are for."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path(__file__).resolve().parent / "releases.toml"


@dataclass(frozen=True)
class Release:
    # 7.2: the directory below series/, and the name that kernel.org and distributions use
    name: str
    # 7.2.13: the version of the source that was tested last
    tested: str
    # The number of object files in a build for the guests
    objects: int
    # The number of object files of the small crash kernel
    crash_objects: int


RELEASES = {
    name: Release(name, **values) for name, values in tomllib.loads(_TABLE.read_text()).items()
}
NEWEST = list(RELEASES.values())[-1]
