"""python3 -m kernel build|check|boot|deps: the kernel that the series are tested in."""

import argparse
import os
import sys
import tomllib
from pathlib import Path

from kernel.build import HERE, Request, build, make_plan
from kernel.check import check, check_boots
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
        command.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
        command.add_argument(
            "--source",
            type=Path,
            default=_path(os.environ.get("TINYKDUMP_KERNEL_SOURCE")),
            help="tarball of the pristine source (TINYKDUMP_KERNEL_SOURCE)",
        )
        if name == "boot":
            command.add_argument("scenarios", nargs="*", help="see kernel/scenarios.py")
    deps = commands.add_parser("deps", help="print the packages that this needs")
    deps.add_argument("distribution", nargs="?", choices=["debian", "fedora"], default="debian")
    return parser


def _request(args: argparse.Namespace) -> Request:
    return Request(
        cache=_cache(),
        release=args.release,
        series=[] if args.stock else args.series,
        fragments=("vm", "debug") if args.debug else ("vm",),
        source=args.source,
        jobs=args.jobs,
    )


def main() -> int:
    args = _parser().parse_args()
    if args.command == "deps":
        packages = tomllib.loads((HERE / "deps.toml").read_text())
        print("\n".join(packages[args.distribution]))
        return 0
    try:
        plan = make_plan(_request(args))
        if args.command == "check":
            return check(plan)
        kernel = build(plan)
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
