# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache directory for everything large, outside the checkout."""

import os
from pathlib import Path


def directory() -> Path:
    """TINYKDUMP_CACHE, or tinykdump in the user's cache (XDG Base Directory Specification)."""
    chosen = os.environ.get("TINYKDUMP_CACHE")
    if chosen:
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return ((Path(base) if base else Path.home() / ".cache") / "tinykdump").resolve()
