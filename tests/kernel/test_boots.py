# SPDX-License-Identifier: GPL-2.0-or-later
"""The scripts of guest/ on the kernel with the series, also as configured otherwise, and on the
stock kernel."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kernel.build import Plan, Request
from kernel.tree import find_series
from tests.kernel.boots import Boots, differing, same_memory
from tests.kernel.scenarios import (
    NEEDED_OPTIONS,
    OTHER_CONFIGURATIONS,
    SCENARIOS,
    SHOWS_NOTHING,
    compared,
)
from tests.kernel.scripts import Outcome, Scenario
from tests.vmtest.kernels import Kernel

ALL = [(name, one) for name, scenarios in SCENARIOS.items() for one in scenarios]
ALL_OTHERS = [
    (fragment, one) for fragment, scenarios in OTHER_CONFIGURATIONS.items() for one in scenarios
]

# The areas are aligned, and the page tables of an early allocation can take a block more.
SCRATCH_NOISE_MIB = 16

Boot = Callable[[Scenario], Outcome]


@pytest.fixture(scope="session")
def image(boots: Boots, plan: Plan, built: Kernel) -> Path:
    return boots.image(plan, built)


@pytest.fixture(scope="session")
def boot(boots: Boots, built: Kernel, image: Path) -> Boot:
    return lambda scenario: boots.boot(scenario, built, image)


@pytest.fixture(scope="session")
def configured(
    build_kernel: Callable[[Request], Kernel], kernel_plan: Callable[[Request], Plan],
    wanted: Request, boots: Boots,
) -> Callable[[str], tuple[Kernel, Path]]:  # fmt: skip
    """The same kernel with one more fragment of its configuration."""

    def build(fragment: str) -> tuple[Kernel, Path]:
        request = replace(wanted, fragments=(*wanted.fragments, fragment))
        kernel = build_kernel(request)
        return kernel, boots.image(kernel_plan(request), kernel)

    return build


def needs(plan: Plan, series: str) -> None:
    if series not in {one.name for one in plan.series}:
        pytest.skip(f"not built with {series}")


def needs_release(plan: Plan, script: str) -> None:
    """Skip a script that cannot show on this release what it is for."""
    release, option = plan.release, NEEDED_OPTIONS.get(script)
    if option in release.without:
        pytest.skip(f"Linux {release.name} does not have {option}")
    if reason := SHOWS_NOTHING.get((script, release.name)):
        pytest.skip(f"Linux {release.name}: {reason}")


def needs_room(plan: Plan, scenario: Scenario) -> None:
    """Skip a scenario about a small machine, which cannot have more memory, if KASAN takes so much
    that no region fits beside it."""
    if not scenario.fits_kasan and plan.options.get("CONFIG_KASAN") == "y":
        pytest.skip(f"KASAN leaves too little of {scenario.memory}")


@pytest.mark.parametrize(("series", "scenario"), ALL, ids=[one.name for _, one in ALL])
def test_script(boot: Boot, plan: Plan, series: str, scenario: Scenario) -> None:
    needs(plan, series)
    needs_release(plan, scenario.script)
    needs_room(plan, scenario)
    assert boot(scenario).failures == ()


def test_an_area_takes_no_memory(boot: Boot, plan: Plan) -> None:
    """MemTotal does not depend on the size of the area."""
    needs(plan, "kexec-cma")
    outcomes = [boot(scenario) for _, scenario in ALL if scenario.script == "resize"]
    assert len([one for one in outcomes if one.scenario.memory == "1G"]) > 1
    assert same_memory(outcomes) == []


@pytest.fixture(scope="module")
def static(
    boots: Boots, plan: Plan, built: Kernel, without_series: Kernel, image: Path
) -> tuple[list[Outcome], list[Outcome]]:
    """The outcomes of crashkernel= at boot, with and without the series."""
    known = {one.name for one in find_series(plan.directory, None)}
    ours, stock = (
        [boots.boot(scenario, kernel, image) for scenario in compared(known)]
        for kernel in (built, without_series)
    )
    return ours, stock


def test_crashkernel_reserves_the_same_as_without_the_series(
    static: tuple[list[Outcome], list[Outcome]],
) -> None:
    ours, stock = static
    assert [line for outcome in (*ours, *stock) for line in outcome.failures] == []
    assert differing(ours, stock) == []


@pytest.mark.parametrize(
    ("fragment", "scenario"),
    ALL_OTHERS,
    ids=[f"{fragment}-{one.name}" for fragment, one in ALL_OTHERS],
)
def test_script_as_configured(
    boots: Boots, plan: Plan, configured: Callable[[str], tuple[Kernel, Path]], fragment: str,
    scenario: Scenario,
) -> None:  # fmt: skip
    needs(plan, "kexec-cma")
    needs_release(plan, scenario.script)
    assert boots.boot(scenario, *configured(fragment)).failures == ()


def test_scratch_areas_of_a_handover_do_not_grow_with_the_area(
    boots: Boots, plan: Plan, configured: Callable[[str], tuple[Kernel, Path]]
) -> None:
    """They are twice what the kernel has allocated early, without the area of 192 MiB."""
    needs(plan, "kexec-cma")
    needs_release(plan, "handover")
    named = {one.name: one for one in OTHER_CONFIGURATIONS["checked"]}
    area, no_area = (
        boots.boot(named[name], *configured("checked")).figures
        for name in ("handover", "handover-no-area")
    )
    assert (area["CmaTotal"], no_area["CmaTotal"]) == ("196608", "0")
    assert abs(int(area["scratch_mib"]) - int(no_area["scratch_mib"])) <= SCRATCH_NOISE_MIB
