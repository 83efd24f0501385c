# SPDX-License-Identifier: GPL-2.0-or-later
"""Each commit of each series applies, passes checkpatch and builds."""

from pathlib import Path

import pytest

from kernel import releases
from kernel.build import SERIES, Plan, objects_in
from kernel.tree import Commit, find_series
from tests.kernel import checks
from tests.vmtest.kernels import Kernel

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


def test_commit_builds(plan: Plan, commit: Commit) -> None:
    checks.compile_commit(plan, commit)


def test_kconfig_accepts_the_options_for_users(plan: Plan) -> None:
    if len(plan.series) < len(find_series(plan.directory, None)):
        pytest.skip("tinykdump.config names options of all series")
    assert checks.unmet_user_options(plan) == []


def test_number_of_objects_for_the_progress_bar(plan: Plan, built: Kernel) -> None:
    if built.directory != plan.result:
        pytest.skip("the kernel that the environment names was not built here")
    assert abs(objects_in(plan.objects) - plan.release.objects) < plan.release.objects / 20
