# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots each scenario once for all tests, and compares the figures of kernels."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from kernel.build import Plan
from kernel.tree import git
from tests.kernel import scripts
from tests.kernel.scripts import Outcome, Programs, Scenario
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import X86_64


@dataclass(frozen=True)
class Boots:
    """The outcomes of the scenarios that were booted."""

    directory: Path
    # Of the guests; None: those of this machine
    programs: Programs | None = None
    _images: dict[Path, Path] = field(default_factory=dict)
    _outcomes: dict[tuple[Path, Scenario], Outcome] = field(default_factory=dict)

    def image(self, plan: Plan, kernel: Kernel) -> Path:
        """The initramfs for a kernel that was built from this plan."""
        if kernel.directory not in self._images:
            image = self.directory / f"{kernel.directory.name}.img"
            programs = self.programs or scripts.of_this_machine()
            scripts.make_image(selftests(plan.tree, plan.commit), kernel, image, programs)
            self._images[kernel.directory] = image
        return self._images[kernel.directory]

    def boot(self, scenario: Scenario, kernel: Kernel, image: Path) -> Outcome:
        """Boot a scenario in its own guest; keeps the console in the directory."""
        if (kernel.directory, scenario) not in self._outcomes:
            place = self.directory / kernel.directory.name / scenario.name
            shutil.rmtree(place, ignore_errors=True)
            config = (kernel.directory / "config").read_text()
            adapted = for_kasan(scenario) if "CONFIG_KASAN=y\n" in config else scenario
            outcome = scripts.boot(adapted, kernel, image, place)
            for name, value in outcome.figures.items():
                print(f"  {scenario.name}: {name} = {value}", flush=True)
            self._outcomes[kernel.directory, scenario] = replace(outcome, scenario=scenario)
        return self._outcomes[kernel.directory, scenario]


def selftests(tree: Path, commit: str) -> dict[str, str]:
    """The scripts of the kernel's selftests that guests run, by their path there.

    A commit without the series does not have its script. They are read from git, so that no build
    in the tree has to wait.
    """
    place = "tools/testing/selftests"
    names = git(tree, "ls-tree", "-r", "--name-only", commit, f"{place}/").splitlines()
    return {
        name: git(tree, "show", f"{commit}:{place}/{name}") + "\n"
        for name in scripts.SELFTESTS
        if f"{place}/{name}" in names
    }


def for_kasan(scenario: Scenario) -> Scenario:
    """The scenario with five times the time, because KASAN is slow, and without LA57. Pure.

    While Linux 7.2 detects the CPU's features, it clears their bits for a moment, including that of
    LA57. An interrupt at that moment, which a crash kernel can get, makes KASAN report every
    address as wild.
    """
    return replace(scenario, seconds=5 * scenario.seconds, cpu=f"{X86_64.cpu},la57=off")


# Kilobytes: a longer command line and the bitmap of an area take a page or two.
NOISE_KB = 64


def same_memory(outcomes: list[Outcome]) -> list[str]:
    """The outcomes whose MemTotal is smaller than without an area: an area must not take memory.
    Pure."""
    totals = {
        outcome.scenario.name: int(outcome.figures["MemTotal"])
        for outcome in outcomes
        if "MemTotal" in outcome.figures and outcome.scenario.memory == "1G"
    }
    values = totals.values()
    return (
        [f"MemTotal differs: {totals}"] if values and max(values) - min(values) > NOISE_KB else []
    )


def _seen(outcomes: list[Outcome]) -> dict[str, dict[str, str]]:
    """The figures by scenario. Pure.

    MemTotal is relative to the first scenario with the same memory, because two kernels differ in
    size; what a reservation takes must not differ.
    """
    first: dict[str, int] = {}
    seen = {}
    for outcome in outcomes:
        total = int(outcome.figures["MemTotal"])
        lost = first.setdefault(outcome.scenario.memory, total) - total
        seen[outcome.scenario.name] = {**outcome.figures, "MemTotal": f"{lost} kB less"}
    return seen


def differing(ours: list[Outcome], stock: list[Outcome]) -> list[str]:
    """The differences in a reservation at boot from a kernel without the series. Pure."""
    with_series, without = _seen(ours), _seen(stock)
    return [
        f"{name}: {figure} is {with_series[name].get(figure)}, without the series {value}"
        for name, figures in without.items()
        for figure, value in figures.items()
        if with_series[name].get(figure) != value
    ]
