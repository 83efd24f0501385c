"""What a reviewer would ask of each patch: applies, is clean, builds, and its tests pass."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from kernel import kconfig
from kernel.boots import check_boots, check_static, check_without_cma
from kernel.build import HERE, Plan, Request, build, configure, fragment, locked, make, make_plan
from kernel.guest import APPEND
from kernel.run import KernelError, output, say, stopwatch
from kernel.tree import Commit, checkout, find_series, touched

# Longer than any boot with all suites under emulation on a busy machine.
KUNIT_SECONDS = 600


def checkpatch_arguments(exceptions: dict[str, str]) -> list[str]:
    """The types of complaints that checkpatch.toml gives a reason to ignore."""
    return ["--ignore", ",".join(sorted(exceptions))] if exceptions else []


def targets(files: list[str], tree: Path) -> list[str]:
    """What make has to build so that everything that a commit touched is compiled.

    A directory builds the objects that the configuration asks for in it; a
    header of the whole kernel can be included anywhere.
    """
    if any(file.startswith("include/") or "/include/" in file for file in files):
        return ["vmlinux", "modules"]
    directories = {
        str(Path(file).parent) for file in files if file.endswith((".c", ".S", ".h", "Makefile"))
    }
    built = [name for name in directories if not name.startswith(("tools", "Documentation"))]
    return sorted(f"{name}/" for name in built if (tree / name / "Makefile").exists())


def _checkpatch(plan: Plan, commit: Commit) -> bool:
    exceptions = tomllib.loads((HERE / "checkpatch.toml").read_text())["ignore"]
    argv = [
        "scripts/checkpatch.pl",
        "--strict",
        "--no-summary",
        "--show-types",
        *checkpatch_arguments(exceptions),
    ]
    try:
        text = output([*argv, str(commit.patch.resolve())], cwd=plan.tree)
    except KernelError as error:
        text = str(error)
    # It names the patch when there is something to say, and only then.
    complaints = [line for line in text.splitlines() if re.match(r"(ERROR|WARNING|CHECK):", line)]
    for line in complaints:
        say(f"  {line}")
    return not complaints


def _builds(plan: Plan, commit: Commit) -> bool:
    checkout(plan.tree, commit.id)
    wanted = targets(touched(commit.patch.read_text()), plan.tree)
    try:
        # An option that a later commit brings is unknown here, and ignored.
        configure(plan, plan.options, strict=False)
        if wanted:
            make(plan, "prepare", "modules_prepare", *wanted, log="check.log")
    except KernelError as error:
        say(f"  {error}")
        return False
    return True


def _check_commits(plan: Plan) -> int:
    failed = 0
    with locked(plan), stopwatch("commits"):
        for number, commit in enumerate(plan.commits, 1):
            say(f"[{number}/{len(plan.commits)}] {commit.series}/{commit.patch.name}")
            good = _checkpatch(plan, commit)
            good &= _builds(plan, commit)
            failed += not good
        checkout(plan.tree, plan.commit)
    return failed


def _check_user_options(plan: Plan) -> int:
    """A usual configuration plus tinykdump.config has to come out as written."""
    if {one.name for one in plan.series} != {one.name for one in find_series(plan.directory, None)}:
        say("tinykdump.config names options of all series: not checked with some of them")
        return 0
    objects = plan.objects.with_name(f"{plan.objects.name}-defconfig")
    objects.mkdir(parents=True, exist_ok=True)
    text = fragment("tinykdump")
    with locked(plan):
        checkout(plan.tree, plan.commit)
        output(["make", f"O={objects}", "x86_64_defconfig"], cwd=plan.tree)
        config = objects / ".config"
        config.write_text(config.read_text() + text)
        output(["make", f"O={objects}", "olddefconfig"], cwd=plan.tree)
    missing = kconfig.unmet(kconfig.parse(text), kconfig.parse(config.read_text()))
    for line in missing:
        say(f"  tinykdump.config: {line}")
    return int(bool(missing))


def _boot_kunit(kernel: Path, log: Path) -> None:
    argv = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1G",
        "-display", "none", "-no-reboot", "-serial", f"file:{log}",
        "-kernel", str(kernel),
        # The results are informational messages.
        "-append", f"{APPEND} ignore_loglevel kunit.enable=1 kunit.autorun=1 kunit_shutdown=reboot",
    ]  # fmt: skip
    try:
        subprocess.run(argv, check=True, timeout=KUNIT_SECONDS)
    except (subprocess.SubprocessError, FileNotFoundError) as error:
        raise KernelError(
            f"the machine that runs KUnit was lost: {error}", f"its console is in {log}"
        ) from error


def _check_kunit(plan: Plan, kernel: Path) -> int:
    """Boot once with every built-in suite, and let the kernel's own parser judge the log."""
    log = plan.objects / "kunit.log"
    with stopwatch("KUnit"):
        _boot_kunit(kernel / "vmlinuz", log)
    try:
        text = output([sys.executable, "tools/testing/kunit/kunit.py", "parse", log], cwd=plan.tree)
        failed = 0
    except KernelError as error:
        text, failed = str(error), 1
    for line in text.splitlines():
        if failed or "Testing complete" in line:
            say(f"  {line}")
    return failed


def check(request: Request) -> int:
    """0 when everything passed; what failed is said where it fails, and summed up."""
    plan = make_plan(request)
    say(f"Linux {plan.source.version}: {len(plan.commits)} patches apply")
    results = {"commits": _check_commits(plan), "tinykdump.config": _check_user_options(plan)}
    if not any(results.values()):
        kernel = build(plan)
        results["KUnit"] = _check_kunit(plan, kernel)
        results["boots"] = check_boots(plan, kernel, [])
        results["static"] = check_static(request, plan, kernel)
        results["without CMA"] = check_without_cma(request)
    for name, failed in results.items():
        say(f"{'FAIL' if failed else 'ok':4} {name}")
    return int(any(results.values()))
