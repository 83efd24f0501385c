"""Measure growing: a table for who waits, a report for who compares."""

import json
from pathlib import Path

from kernel.boots import initramfs_of, pick, run_scenarios
from kernel.build import HERE, Plan
from kernel.guest import Outcome
from kernel.run import say
from kernel.scenarios import bench_scenarios

REPORT = HERE.parent / "build" / "bench" / "kernel.json"
COLUMNS = {
    "rounds": "rounds",
    "failed": "failed",
    "failed_with_retries": "after retries",
    "median_ms": "median ms",
    "worst_ms": "worst ms",
    "moved_mib_each": "moved MiB",
    "at_boot_error": "at boot",
    "at_boot_ms": "ms",
}


def table(outcomes: list[Outcome]) -> str:
    """One line for each scenario; a figure that it does not have is a dash. Pure."""
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
    """Everything that was measured, as JSON. Pure."""
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


def bench(plan: Plan, kernel: Path, names: list[str], rounds: int) -> int:
    """0 when every guest did what it was to do; the goals are asserted in the guests."""
    known = bench_scenarios(rounds)
    scenarios = pick((one for own in plan.series for one in known.get(own.name, ())), names)
    initramfs = initramfs_of(plan, kernel)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    for scenario in scenarios:
        outcomes += run_scenarios(plan, kernel, initramfs, [scenario])
        # All of it takes hours: what is interrupted keeps what it has measured.
        REPORT.write_text(report(outcomes) + "\n")
    print(table(outcomes), flush=True)
    say(f"all figures are in {REPORT}")
    return int(any(outcome.failures for outcome in outcomes))
