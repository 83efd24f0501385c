# SPDX-License-Identifier: GPL-2.0-or-later
"""Each commit of each series applies, passes checkpatch and builds."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kernel import releases
from kernel.build import CRASH_ONLY, SERIES, Plan, Request, objects_in
from kernel.tree import Commit, find_series
from tests.kernel import checks
from tests.vmtest import kernels
from tests.vmtest.kernels import Kernel

PATCHES = [
    patch for series in find_series(SERIES / releases.NEWEST.name, None) for patch in series.patches
]


@pytest.fixture(params=PATCHES, ids=lambda patch: f"{patch.parent.name}/{patch.stem[:32]}")
def commit(
    request: pytest.FixtureRequest, plan: Plan, kernel_plan: Callable[[Request], Plan]
) -> tuple[Plan, Commit]:
    """A commit, and the plan of the kernel that is built with it."""
    patch: Path = request.param
    if patch.parent.name in CRASH_ONLY:
        plan = kernel_plan(kernels.SMALL)
    found = [commit for commit in plan.commits if commit.patch == patch]
    if not found:
        pytest.skip(f"--kernel-series leaves out {patch.parent.name}")
    return plan, found[0]


def test_checkpatch(commit: tuple[Plan, Commit]) -> None:
    assert checks.checkpatch(*commit) == []


def test_commit_builds(commit: tuple[Plan, Commit]) -> None:
    checks.compile_commit(*commit)


def test_kconfig_accepts_the_options_for_users(plan: Plan) -> None:
    if {one.name for one in find_series(plan.directory, None)} > {
        *CRASH_ONLY, *(one.name for one in plan.series),
    }:  # fmt: skip
        pytest.skip("tinykdump.config names options of all series")
    assert checks.unmet_user_options(plan) == []


def test_number_of_objects_for_the_progress_bar(plan: Plan, built: Kernel) -> None:
    if built.directory != plan.result:
        pytest.skip("the kernel that the environment names was not built here")
    assert abs(objects_in(plan.objects) - plan.release.objects) < plan.release.objects / 20
