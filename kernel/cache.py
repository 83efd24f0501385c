# SPDX-License-Identifier: GPL-2.0-or-later
"""Where everything large is kept, outside of the checkout."""

import os
from pathlib import Path


def directory() -> Path:
    """TINYKDUMP_CACHE, else tinykdump in the user's cache (XDG Base Directory Specification)."""
    chosen = os.environ.get("TINYKDUMP_CACHE")
    if chosen:
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return ((Path(base) if base else Path.home() / ".cache") / "tinykdump").resolve()
