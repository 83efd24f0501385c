# SPDX-License-Identifier: GPL-2.0-or-later
"""The releases of Linux that are tested."""

import pytest

from kernel import releases
from kernel.build import Request, find_source
from kernel.releases import Release
from kernel.source import NoSourceError

_CHOSEN = releases.chosen()
# The one that TINYKDUMP_KERNEL_SERIES names, or all.
RELEASES = [_CHOSEN] if _CHOSEN else [*releases.RELEASES.values()]


def available(release: Release) -> Release:
    """The release; a test of one that was not named is skipped if nobody has its source."""
    try:
        find_source(Request(release))
    except NoSourceError as error:
        if _CHOSEN:
            raise
        pytest.skip(str(error))
    return release
