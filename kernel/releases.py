# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of the kernels that there are series for: releases.toml."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path(__file__).resolve().parent / "releases.toml"


@dataclass(frozen=True)
class Release:
    # 7.2: the directory below series/, and what kernel.org and distributions call it
    name: str
    # 7.2.13: the version of the source that was tested last
    tested: str
    # How many object files a build for the guests makes
    objects: int


RELEASES = {
    name: Release(name, **values) for name, values in tomllib.loads(_TABLE.read_text()).items()
}
NEWEST = list(RELEASES.values())[-1]
