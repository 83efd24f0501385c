# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots of what was built, each once whoever asks for it, and what differs between kernels."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from kernel.build import Plan, locked
from kernel.tree import checkout
from tests.kernel import scripts
from tests.kernel.scripts import Outcome, Scenario
from tests.vmtest.kernels import Kernel


@dataclass(frozen=True)
class Boots:
    """The scenarios that were booted, with what came of them."""

    directory: Path
    _images: dict[Path, Path] = field(default_factory=dict)
    _outcomes: dict[tuple[Path, Scenario], Outcome] = field(default_factory=dict)

    def image(self, plan: Plan, kernel: Kernel) -> Path:
        """The initramfs for a kernel that was built of this plan."""
        if kernel.directory not in self._images:
            image = self.directory / f"{kernel.directory.name}.img"
            with locked(plan):
                checkout(plan.tree, plan.commit)
                scripts.make_image(plan.tree, kernel, image)
            self._images[kernel.directory] = image
        return self._images[kernel.directory]

    def boot(self, scenario: Scenario, kernel: Kernel, image: Path) -> Outcome:
        """In a guest of its own; the console stays in the directory."""
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


def for_kasan(scenario: Scenario) -> Scenario:
    """Every access to memory is checked, by code that is emulated: five times as long. Pure.

    And with four levels of page tables. The bits of CPU features are cleared for a moment while
    Linux 7.2 looks for them, LA57 with them, and an interrupt at that time, as a crash kernel has
    them, makes KASAN take every address for a wild one.
    """
    return replace(scenario, seconds=5 * scenario.seconds, cpu="max,la57=off")


# Kilobytes: a longer command line and the map of an area take a page or two.
NOISE_KB = 64


def same_memory(outcomes: list[Outcome]) -> list[str]:
    """An area must not cost what a reservation does: MemTotal is that of a guest without. Pure."""
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
    """The figures by scenario; MemTotal is the difference to the first with that memory. Pure.

    Two kernels are never of one size, so what they leave of memory differs; what a
    reservation takes from it must not.
    """
    first: dict[str, int] = {}
    seen = {}
    for outcome in outcomes:
        total = int(outcome.figures["MemTotal"])
        lost = first.setdefault(outcome.scenario.memory, total) - total
        seen[outcome.scenario.name] = {**outcome.figures, "MemTotal": f"{lost} kB less"}
    return seen


def differing(ours: list[Outcome], stock: list[Outcome]) -> list[str]:
    """Where a reservation made at boot is not what it is without the series. Pure."""
    with_series, without = _seen(ours), _seen(stock)
    return [
        f"{name}: {figure} is {with_series[name].get(figure)}, without the series {value}"
        for name, figures in without.items()
        for figure, value in figures.items()
        if with_series[name].get(figure) != value
    ]
