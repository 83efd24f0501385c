# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures how often and how fast the reservation grows while memory is in use.

Prints a table, and writes a report as JSON.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from kernel.build import HERE, Request, make_plan
from tests.bench.report import Measured
from tests.kernel.boots import Boots
from tests.kernel.scenarios import bench_scenarios
from tests.kernel.scripts import Outcome, Scenario
from tests.vmtest import kernels

REPORT = HERE.parent / "build" / "bench" / "kernel.json"
# Rounds for each kind of load; enough to distinguish success rates of 99 % and 95 %.
ROUNDS = 200
COLUMNS = {
    "rounds": "rounds",
    "failed": "failed",
    "failed_with_retries": "after retries",
    "writes": "writes",
    "median_ms": "median ms",
    "worst_ms": "worst ms",
    "longest_write_ms": "one write ms",
    "moved_mib_each": "moved MiB",
    "at_boot_error": "at boot",
    "at_boot_ms": "ms",
}


def table(outcomes: list[Outcome]) -> str:
    """A line for each scenario, with a dash for a missing figure. Pure."""
    rows = [["scenario", *COLUMNS.values()]]
    rows += [
        [outcome.scenario.name, *(outcome.figures.get(name, "-") for name in COLUMNS)]
        for outcome in outcomes
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def report(outcomes: list[Outcome]) -> str:
    """All figures and failures, as JSON. Pure."""
    return json.dumps(
        {
            outcome.scenario.name: {
                "memory": outcome.scenario.memory,
                "append": outcome.scenario.append,
                "figures": dict(outcome.figures),
                "failures": list(outcome.failures),
            }
            for outcome in outcomes
        },
        indent=2,
    )


def pick(scenarios: Iterable[Scenario], names: list[str]) -> tuple[Scenario, ...]:
    """The named scenarios, or all. Raises ValueError for an unknown name. Pure."""
    known = {scenario.name: scenario for scenario in scenarios}
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"no scenario {missing[0]} (known: {', '.join(known)})")
    return tuple(known[name] for name in names) if names else tuple(known.values())


def figures(outcomes: Iterable[Outcome]) -> Iterator[Measured]:
    """The figures that curves are made of. Pure."""
    for outcome in outcomes:
        for name in ("median_ms", "worst_ms"):
            if text := outcome.figures.get(name):
                yield Measured(f"growth of the reservation, {COLUMNS[name]}",
                               outcome.scenario.name, "ms", (float(text),),
                               f"python -m tests.bench.growth {outcome.scenario.name}")  # fmt: skip


def measure(names: list[str], rounds: int = ROUNDS) -> list[Outcome]:
    """The outcomes of all scenarios, or the named ones; the guests check whether goals are met."""
    request = Request()
    plan, kernel = make_plan(request), kernels.build(request)
    known = bench_scenarios(rounds)
    scenarios = pick((one for own in plan.series for one in known.get(own.name, ())), names)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as directory:
        boots = Boots(Path(directory))
        for scenario in scenarios:
            outcomes.append(boots.boot(scenario, kernel, boots.image(plan, kernel)))
            for line in outcomes[-1].failures:
                print(f"  {scenario.name}: {line}", flush=True)
            # All scenarios take hours, so keep the figures if this is interrupted.
            REPORT.write_text(report(outcomes) + "\n")
    print(table(outcomes), flush=True)
    return outcomes


def main() -> int:
    """Run all scenarios, or the named ones."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.growth", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="for each load (%(default)s)")
    parser.add_argument("scenarios", nargs="*", help="see tests/kernel/scenarios.py")
    words = parser.parse_args()
    return 1 if any(each.failures for each in measure(words.scenarios, words.rounds)) else 0


if __name__ == "__main__":
    sys.exit(main())
