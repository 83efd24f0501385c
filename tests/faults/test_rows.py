# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of the fault matrix that make check runs, on Debian's kernel."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import ground
from tests.faults.bench import resumed
from tests.faults.scenario import PLAIN, Scenario
from tests.faults.table import ROWS
from tests.vmtest.rootfs import Recipe, Root

CHECKED = [row for row in ROWS if row.in_check]


@pytest.fixture(scope="module")
def armed(
    build_root: Callable[[Recipe], Root], tmp_path_factory: pytest.TempPathFactory
) -> ground.Ground:
    build_root(Recipe())
    return ground.prepare("stock", PLAIN, tmp_path_factory.mktemp("ground"))


@pytest.mark.parametrize("row", CHECKED, ids=[row.id for row in CHECKED])
def test_a_row(row: Scenario, armed: ground.Ground, tmp_path: Path) -> None:
    assert row.check
    with resumed(armed, tmp_path) as bench:
        assert row.check(bench)
