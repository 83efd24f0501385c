# SPDX-License-Identifier: GPL-2.0-or-later
"""Each commit of each series applies, passes checkpatch and builds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kernel.architectures import ARCHITECTURES
from kernel.build import CRASH_ONLY, SERIES, Plan, Request, objects_in
from kernel.releases import Release
from kernel.tree import Commit, find_series
from tests.kernel import checks
from tests.kernel.versions import RELEASES, available
from tests.vmtest import kernels
from tests.vmtest.kernels import Kernel

PATCHES = [
    (release, patch)
    for release in RELEASES
    for series in find_series(SERIES / release.name, None)
    for patch in series.patches
]


@pytest.fixture(
    params=PATCHES,
    ids=[f"{release.name}/{patch.parent.name}/{patch.stem[:32]}" for release, patch in PATCHES],
)
def commit(
    request: pytest.FixtureRequest, kernel_plan: Callable[[Request], Plan], usual: Request
) -> tuple[Plan, Commit]:
    """A commit, and the plan of the kernel that is built with it."""
    patch: Path
    release: Release
    release, patch = request.param
    wanted = kernels.SMALL if patch.parent.name in CRASH_ONLY else usual
    owner = [one for one in ARCHITECTURES.values() if patch.parent.name in one.series]
    wanted = replace(wanted, architecture=owner[0]) if owner else wanted
    plan = kernel_plan(replace(wanted, release=available(release)))
    found = [commit for commit in plan.commits if commit.patch == patch]
    if not found:
        pytest.skip(f"--kernel-series leaves out {patch.parent.name}")
    return plan, found[0]


def test_checkpatch(commit: tuple[Plan, Commit]) -> None:
    assert checks.checkpatch(*commit) == []


def test_commit_builds(commit: tuple[Plan, Commit]) -> None:
    checks.compile_commit(*commit)


def test_kconfig_accepts_the_options_for_users(plan: Plan) -> None:
    elsewhere = {name for one in ARCHITECTURES.values() for name in one.series}
    if {one.name for one in find_series(plan.directory, None)} > {
        *CRASH_ONLY, *elsewhere, *(one.name for one in plan.series),
    }:  # fmt: skip
        pytest.skip("tinykdump.config names options of all series")
    assert checks.unmet_user_options(plan) == []


def test_number_of_objects_for_the_progress_bar(plan: Plan, built: Kernel) -> None:
    if built.directory != plan.result:
        pytest.skip("the kernel that the environment names was not built here")
    expected = plan.release.objects[plan.base]
    assert abs(objects_in(plan.objects) - expected) < expected / 20
