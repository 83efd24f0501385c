"""python3 -m kernel build|check|boot|bench|deps: the kernel that the series are tested in."""

import argparse
import os
import sys
import tomllib
from pathlib import Path

from kernel.bench import bench
from kernel.boots import WITHOUT_CMA, check_boots
from kernel.build import HERE, Request, build, make_plan
from kernel.check import check
from kernel.run import KernelError, say


def _cache() -> Path:
    return Path(os.environ.get("TINYKDUMP_CACHE") or Path.home() / ".cache" / "tinykdump")


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m kernel", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "build": "build the test kernel; the last line of the output is its directory",
        "check": "apply, checkpatch and build each commit, run KUnit and the boot tests",
        "boot": "build, and run only the boot tests, all or those named",
        "bench": "build, and measure: how often and how fast the region grows under load",
    }.items():
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "--release", default="7.2", help="which series, and which kernel (7.2)"
        )
        command.add_argument(
            "--series", action="append", metavar="NAME", help="only this one (repeatable)"
        )
        command.add_argument(
            "--stock", action="store_true", help="no series: the kernel as it comes"
        )
        command.add_argument(
            "--debug", action="store_true", help="with lockdep, KASAN and more; slow"
        )
        command.add_argument(
            "--without-cma", action="store_true", help="with CONFIG_CMA off, as in Debian"
        )
        command.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
        command.add_argument(
            "--source",
            type=Path,
            default=_path(os.environ.get("TINYKDUMP_KERNEL_SOURCE")),
            help="tarball of the pristine source (TINYKDUMP_KERNEL_SOURCE)",
        )
        if name in ("boot", "bench"):
            command.add_argument("scenarios", nargs="*", help="see kernel/scenarios.py")
        if name == "bench":
            command.add_argument(
                "--rounds", type=int, default=200, help="how often each kind of load is met (200)"
            )
    deps = commands.add_parser("deps", help="print the packages that this needs")
    deps.add_argument("distribution", nargs="?", choices=["debian", "fedora"], default="debian")
    return parser


def _request(args: argparse.Namespace) -> Request:
    fragments = ["vm"]
    fragments += ["debug"] if args.debug else []
    fragments += [WITHOUT_CMA] if args.without_cma else []
    return Request(
        cache=_cache(),
        release=args.release,
        series=[] if args.stock else args.series,
        fragments=tuple(fragments),
        source=args.source,
        jobs=args.jobs,
    )


def main(words: list[str] | None = None) -> int:
    args = _parser().parse_args(words)
    if args.command == "deps":
        packages = tomllib.loads((HERE / "deps.toml").read_text())
        print("\n".join(packages[args.distribution]))
        return 0
    try:
        if args.command == "check":
            return check(_request(args))
        plan = make_plan(_request(args))
        kernel = build(plan)
        if args.command == "bench":
            return bench(plan, kernel, args.scenarios, args.rounds)
        if args.command == "boot":
            return int(check_boots(plan, kernel, args.scenarios) > 0)
        print(kernel)
    except KernelError as error:
        say(f"error: {error}")
        if error.hint:
            say(f"hint: {error.hint}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
