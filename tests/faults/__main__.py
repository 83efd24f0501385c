# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the fault matrix: `make faults`, or rows and groups of it.

Crashes one machine after the other. Writes the results to build/faults/report.json and report.md
after each row, where the last result of each row stays, and the consoles beside them. --record
runs nothing, and copies these results to the table of tests/faults/README.md.
"""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from tests.faults import ground, report
from tests.faults.bench import CYCLES, resumed
from tests.faults.scenario import Kernel, Result, Scenario, Shape, Verdict
from tests.faults.table import ROWS
from tests.vmtest.errors import MachineLost

README = Path(__file__).parent / "README.md"
OUTPUT = Path(__file__).parents[2] / "build/faults"
REPORT = OUTPUT / "report.json"


def main() -> int:
    """Run the chosen rows; 0 if the person gets what every one of them promises."""
    options = parser().parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    results = report.from_json(REPORT.read_text()) if REPORT.exists() else []
    if options.record:
        README.write_text(report.replace_table(README.read_text(), ROWS, results))
        return 0
    good = True
    with tempfile.TemporaryDirectory() as directory:

        @cache
        def prepared(kernel: Kernel, shape: Shape) -> ground.Ground:
            return ground.prepare(kernel, shape, Path(tempfile.mkdtemp(dir=directory)))

        for row in chosen(options.names):
            kernel = row.kernel or options.kernel
            with tempfile.TemporaryDirectory(dir=directory) as workdir:
                result = run(row, kernel, prepared(kernel, row.shape), Path(workdir),
                             options.cycles)  # fmt: skip
            print(f"{row.id}: {result.verdict} ({result.seconds:.0f} s): {result.gets}", flush=True)
            good &= result.verdict == "good"
            results = report.merge(results, [result])
            REPORT.write_text(report.to_json(ROWS, results))
            REPORT.with_suffix(".md").write_text(report.table(ROWS, results))
    return 0 if good else 1


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a group, or a row: GROUP/NAME")
    parser.add_argument("--kernel", choices=("stock", "patched"), default="stock",
                        help="Debian's, or that of kernel/, where any will do")  # fmt: skip
    parser.add_argument("--cycles", type=int, default=CYCLES, metavar="N",
                        help="crashes of the endurance row (%(default)s)")  # fmt: skip
    parser.add_argument("--record", action="store_true", help="only update the table in README.md")
    return parser


def chosen(names: Sequence[str]) -> list[Scenario]:
    """The rows that can run and that the names mean, in the order of the names.

    Without names, all but those that take too long.
    """
    for name in names:
        if not any(row.matches(name) for row in ROWS):
            known = ", ".join(sorted({row.group for row in ROWS} | {row.id for row in ROWS}))
            raise SystemExit(f"faults: {name} is neither a group nor a row (they are: {known})")
    usual = (row for row in ROWS if not row.by_name)
    named = (row for name in names for row in ROWS if row.matches(name))
    return [row for row in dict.fromkeys(named if names else usual) if row.check]


def run(row: Scenario, kernel: Kernel, armed: ground.Ground, workdir: Path, cycles: int) -> Result:
    """Run a row, and keep its console."""
    assert row.check
    started = time.monotonic()
    seconds = 0.0
    verdict: Verdict
    with resumed(armed, workdir, cycles) as bench:
        try:
            gets, verdict = row.check(bench), "good"
        except MachineLost as error:
            gets, verdict = error.reason, "lost"
        except Exception as error:  # the other rows are to run
            gets, verdict = f"{type(error).__name__}: {error}", "bad"
            traceback.print_exc()
        seconds = bench.seconds
        (OUTPUT / f"{row.group}-{row.name}.log").write_text(bench.vm.console, encoding="utf-8")
    seconds = seconds or time.monotonic() - started
    date = datetime.now(UTC).date().isoformat()
    return Result(row.id, date, kernel, round(seconds, 1), verdict, gets)


if __name__ == "__main__":
    sys.exit(main())
