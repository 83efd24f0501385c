# SPDX-License-Identifier: GPL-2.0-or-later
"""The source of Linux with the series applied, and the kernels that are built of it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.build import Plan, Request
from tests.vmtest import cache


@pytest.fixture(scope="session")
def plan(kernel_plan: Callable[[Request], Plan]) -> Plan:
    """Both series, and the configuration of the guests."""
    given = os.environ.get("TINYKDUMP_KERNEL_SOURCE")
    return kernel_plan(
        Request(
            cache=cache.directory(), release="7.2", series=None, fragments=("vm",),
            source=Path(given) if given else None, jobs=os.cpu_count() or 1,
        )
    )  # fmt: skip
