# SPDX-License-Identifier: GPL-2.0-or-later
"""The package is built for one release only, because that takes an hour."""

import pytest

from kernel.build import Request, find_source
from kernel.releases import Release


@pytest.fixture(scope="session")
def release() -> Release:
    """The one that TINYKDUMP_KERNEL_SERIES names, or the newest whose source can be had."""
    return find_source(Request())[0]
