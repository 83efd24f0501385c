# SPDX-License-Identifier: GPL-2.0-or-later
"""Each commit of each series: it applies, checkpatch has nothing to say, and it builds."""

from pathlib import Path

import pytest

from kernel import releases
from kernel.build import SERIES, Plan
from kernel.tree import Commit, find_series
from tests.kernel import checks

PATCHES = [
    patch for series in find_series(SERIES / releases.NEWEST.name, None) for patch in series.patches
]


@pytest.fixture(params=PATCHES, ids=lambda patch: f"{patch.parent.name}/{patch.stem[:32]}")
def commit(request: pytest.FixtureRequest, plan: Plan) -> Commit:
    patch: Path = request.param
    found = [commit for commit in plan.commits if commit.patch == patch]
    if not found:
        pytest.skip(f"--kernel-series leaves out {patch.parent.name}")
    return found[0]


def test_checkpatch(plan: Plan, commit: Commit) -> None:
    assert checks.checkpatch(plan, commit) == []


def test_it_builds(plan: Plan, commit: Commit) -> None:
    checks.compile_commit(plan, commit)


def test_options_for_users_come_out_as_written(plan: Plan) -> None:
    if len(plan.series) < len(find_series(plan.directory, None)):
        pytest.skip("tinykdump.config names options of all series")
    assert checks.unmet_user_options(plan) == []
