# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads releases.toml, the table of the kernels that the series are for."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from kernel.run import KernelError

_TABLE = Path(__file__).resolve().parent / "releases.toml"
CHOICE = "TINYKDUMP_KERNEL_SERIES"


@dataclass(frozen=True)
class Release:
    # 7.2: the directory below series/, and the name that kernel.org and distributions use
    name: str
    # 7.2.13: the version of the source that was tested last
    tested: str
    # The suites of Debian to search for the source, separated by spaces
    suites: str
    # The options of the fragments in config/ that it does not have, without CONFIG_
    without: list[str]
    # The number of object files, for the progress bar, by the fragment that a kernel begins with
    objects: dict[str, int]


RELEASES = {
    name: Release(name, **values) for name, values in tomllib.loads(_TABLE.read_text()).items()
}
NEWEST = list(RELEASES.values())[-1]


def chosen() -> Release | None:
    """The release that TINYKDUMP_KERNEL_SERIES names; None: the newest whose source can be had.

    Raises KernelError if there is no such release.
    """
    name = os.environ.get(CHOICE)
    if not name:
        return None
    if name not in RELEASES:
        raise KernelError(
            f"there are no series for Linux {name}", f"choose one of {', '.join(RELEASES)}"
        )
    return RELEASES[name]
