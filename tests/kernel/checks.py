# SPDX-License-Identifier: GPL-2.0-or-later
"""What a reviewer would ask of each patch: it is clean, and it builds."""

import re
import tomllib
from pathlib import Path

from kernel import kconfig
from kernel.build import HERE, Plan, configure, fragment, locked, make
from kernel.run import KernelError, output
from kernel.tree import Commit, checkout, touched


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


def checkpatch(plan: Plan, commit: Commit) -> list[str]:
    """Its complaints."""
    exceptions = tomllib.loads((HERE / "checkpatch.toml").read_text())["ignore"]
    argv = [
        "scripts/checkpatch.pl",
        "--strict",
        "--no-summary",
        "--show-types",
        *checkpatch_arguments(exceptions),
    ]
    with locked(plan):
        checkout(plan.tree, plan.commit)
        try:
            text = output([*argv, str(commit.patch.resolve())], cwd=plan.tree)
        except KernelError as error:
            text = str(error)
    # It names the patch when there is something to say, and only then.
    return [line for line in text.splitlines() if re.match(r"(ERROR|WARNING|CHECK):", line)]


def compile_commit(plan: Plan, commit: Commit) -> None:
    """Compile what a commit touches. Raises KernelError with what the compiler says."""
    with locked(plan):
        checkout(plan.tree, commit.id)
        wanted = targets(touched(commit.patch.read_text()), plan.tree)
        # An option that a later commit brings is unknown here, and ignored.
        configure(plan, plan.options, strict=False)
        if wanted:
            make(plan, "prepare", "modules_prepare", *wanted, log="check.log")


def unmet_user_options(plan: Plan) -> list[str]:
    """What of tinykdump.config does not come out as written on top of a usual configuration."""
    objects = plan.objects.with_name(f"{plan.objects.name}-defconfig")
    objects.mkdir(parents=True, exist_ok=True)
    text = fragment("tinykdump")
    with locked(plan):
        checkout(plan.tree, plan.commit)
        output(["make", f"O={objects}", "x86_64_defconfig"], cwd=plan.tree)
        config = objects / ".config"
        config.write_text(config.read_text() + text)
        output(["make", f"O={objects}", "olddefconfig"], cwd=plan.tree)
    return kconfig.unmet(kconfig.parse(text), kconfig.parse(config.read_text()))
