"""Boot what was built with the scenarios of its series, and compare what differs by kernel."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from kernel.build import Plan, Request, build, locked, make_plan
from kernel.guest import Outcome, Scenario, boot, make_initramfs
from kernel.run import KernelError, say, stopwatch
from kernel.scenarios import SCENARIOS, SCENARIOS_WITHOUT_CMA, STATIC
from kernel.tree import checkout

WITHOUT_CMA = "no-cma"


def scenarios_of(plan: Plan) -> tuple[Scenario, ...]:
    """What is booted with this kernel: of each applied series."""
    table = SCENARIOS if plan.options.get("CONFIG_CMA") == "y" else SCENARIOS_WITHOUT_CMA
    return tuple(scenario for one in plan.series for scenario in table.get(one.name, ()))


def pick(scenarios: Iterable[Scenario], names: list[str]) -> tuple[Scenario, ...]:
    """Those named, or all; a name that there is not must not pass for a success. Pure."""
    known = {scenario.name: scenario for scenario in scenarios}
    if missing := [name for name in names if name not in known]:
        raise KernelError(f"there is no scenario {missing[0]}", f"there are: {', '.join(known)}")
    return tuple(known[name] for name in names) if names else tuple(known.values())


def initramfs_of(plan: Plan, kernel: Path) -> Path:
    with locked(plan):
        checkout(plan.tree, plan.commit)
        return make_initramfs(plan.tree, kernel, plan.objects / "initramfs")


def for_kasan(scenario: Scenario) -> Scenario:
    """Every access to memory is checked, by code that is emulated: five times as long. Pure.

    And with four levels of page tables. The bits of CPU features are cleared for a moment while
    Linux 7.2 looks for them, LA57 with them, and an interrupt at that time, as a crash kernel has
    them, makes KASAN take every address for a wild one.
    """
    return replace(scenario, seconds=5 * scenario.seconds, cpu=f"{scenario.cpu},la57=off")


def run_scenarios(
    plan: Plan, kernel: Path, initramfs: Path, scenarios: Iterable[Scenario]
) -> list[Outcome]:
    """Each in a guest of its own; the consoles are kept beside the objects."""
    outcomes = []
    if plan.options.get("CONFIG_KASAN") == "y":
        scenarios = map(for_kasan, scenarios)
    for scenario in scenarios:
        log = plan.objects / "boots" / f"{scenario.name}.log"
        with stopwatch(f"boot {scenario.name}"):
            outcome = boot(scenario, kernel / "vmlinuz", initramfs, log)
        for name, value in outcome.figures.items():
            say(f"  {scenario.name}: {name} = {value}")
        for line in outcome.failures:
            say(f"  {scenario.name}: {line}")
        outcomes.append(outcome)
    return outcomes


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


def check_boots(plan: Plan, kernel: Path, names: list[str]) -> int:
    """How many scenarios failed."""
    scenarios = pick(scenarios_of(plan), names)
    outcomes = run_scenarios(plan, kernel, initramfs_of(plan, kernel), scenarios)
    differences = same_memory(outcomes)
    for line in differences:
        say(f"  {line}")
    return sum(bool(outcome.failures) for outcome in outcomes) + len(differences)


def check_without_cma(request: Request) -> int:
    """The same kernel with CMA off, as Debian builds it: there is the other backend only."""
    plan = make_plan(replace(request, fragments=(*request.fragments, WITHOUT_CMA)))
    return check_boots(plan, build(plan), [])


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


def check_static(request: Request, plan: Plan, kernel: Path) -> int:
    """crashkernel= as ever: the same boots with and without the series, from one image."""
    initramfs = initramfs_of(plan, kernel)
    ours = run_scenarios(plan, kernel, initramfs, STATIC)
    stock_plan = make_plan(replace(request, series=[]))
    stock = run_scenarios(stock_plan, build(stock_plan), initramfs, STATIC)
    complaints = [line for outcome in (*ours, *stock) for line in outcome.failures]
    if not complaints:
        complaints = differing(ours, stock)
        for line in complaints:
            say(f"  {line}")
    return len(complaints)
