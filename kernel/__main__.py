# SPDX-License-Identifier: GPL-2.0-or-later
"""python3 -m kernel build|deps: builds the kernel of the tests, or the small crash kernel."""

import argparse
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

from kernel import releases
from kernel.architectures import ARCHITECTURES
from kernel.build import CRASH, HERE, Request, build, make_plan
from kernel.run import KernelError, explain


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m kernel", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "build", help="build a kernel, and print its directory as the last line"
    )
    command.add_argument(
        "--release",
        choices=releases.RELEASES,
        help="the kernel, and the series for it (default: TINYKDUMP_KERNEL_SERIES, or the newest "
        "whose source can be had)",
    )
    command.add_argument(
        "--series", action="append", metavar="NAME", help="apply only this series (repeatable)"
    )
    command.add_argument("--stock", action="store_true", help="apply no series")
    command.add_argument("--debug", action="store_true", help="turn on lockdep, KASAN, ...; slow")
    command.add_argument(
        "--without-cma", action="store_true", help="turn off CONFIG_CMA, as in Debian"
    )
    command.add_argument(
        "--fedora", action="store_true", help="build in what Fedora builds into its kernels"
    )
    command.add_argument(
        "--crash", action="store_true", help="build the small crash kernel, not the guests' kernel"
    )
    command.add_argument(
        "--architecture",
        choices=ARCHITECTURES,
        help="build the guests' kernel for that one (default: that of this machine)",
    )
    command.add_argument("--jobs", type=int, default=Request().jobs)
    command.add_argument(
        "--source",
        type=Path,
        default=Request().source,
        help="tarball of the kernel source (default: TINYKDUMP_KERNEL_SOURCE)",
    )
    deps = commands.add_parser("deps", help="print the packages that a build needs")
    lists = tomllib.loads((HERE / "deps.toml").read_text())
    deps.add_argument("distribution", nargs="?", choices=lists, default="debian")
    return parser


def _request(args: argparse.Namespace) -> Request:
    usual = Request()
    fragments = [CRASH] if args.crash else [*usual.fragments]
    fragments += ["debug"] if args.debug else []
    fragments += ["no-cma"] if args.without_cma else []
    fragments += ["fedora"] if args.fedora else []
    return replace(
        usual,
        release=releases.RELEASES.get(args.release),
        architecture=ARCHITECTURES.get(args.architecture),
        series=[] if args.stock else args.series,
        fragments=tuple(fragments),
        source=args.source,
        jobs=args.jobs,
    )


def _build(request: Request) -> Path:
    # Imported here because "deps" must also work on a new machine, which has no rich yet.
    from rich.console import Console  # noqa: PLC0415

    from kernel import progress  # noqa: PLC0415

    plan = make_plan(request)
    with progress.shown(Console(stderr=True), "building the kernel") as show:
        return build(plan, show)


def main(words: list[str] | None = None) -> int:
    args = _parser().parse_args(words)
    if args.command == "deps":
        packages = tomllib.loads((HERE / "deps.toml").read_text())
        print("\n".join(packages[args.distribution]))
        return 0
    try:
        print(_build(_request(args)))
    except KernelError as error:
        print(explain(error, "kernel"), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
