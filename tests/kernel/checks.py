# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of each patch: checkpatch, and whether it builds."""

import hashlib
import re
import tomllib
from dataclasses import replace
from pathlib import Path

from kernel import kconfig
from kernel.build import HERE, Plan, configure, fragment, locked, make
from kernel.run import KernelError, output
from kernel.tree import Commit, checkout, git, touched


def checkpatch_arguments(exceptions: dict[str, str]) -> list[str]:
    """The option that ignores the types of messages in checkpatch.toml."""
    return ["--ignore", ",".join(sorted(exceptions))] if exceptions else []


# Where an object is built with the image only, not as a target of its own.
_IMAGE_ONLY = (
    "arch/x86/boot/",
    "arch/x86/realmode/",
    "arch/x86/purgatory/",
    "arch/x86/entry/vdso/",
)
# A header with more users than this is compiled with everything.
_MANY = 200


def users(header: str, objects: Path) -> list[str]:
    """The objects of a finished build that include a header, by the dependencies that Kbuild notes
    in .NAME.o.cmd."""
    found = []
    for path in objects.rglob(".*.o.cmd"):
        name = str(path.relative_to(objects).with_name(path.name[1:].removesuffix(".cmd")))
        if name.endswith(".mod.o") or name.startswith(("scripts/", "tools/", *_IMAGE_ONLY)):
            continue
        if f"/{header} " in path.read_text(errors="replace"):
            found.append(name)
    return sorted(found)


def targets(files: list[str], tree: Path, objects: Path) -> list[str]:
    """The targets of make that compile every file that a commit touched, and what includes it.

    A directory as a target builds its configured objects. `objects` is a finished build of the
    same configuration, which shows who includes a header. It may have files that later commits
    add to `tree`.
    """
    headers = [file for file in files if file.startswith("include/") or "/include/" in file]
    including = {name for header in headers for name in users(header, objects)}
    if (headers and not including) or len(including) > _MANY:
        return ["vmlinux", "modules"]
    directories = {
        str(Path(file).parent) for file in files if file.endswith((".c", ".S", ".h", "Makefile"))
    }
    built = [name for name in directories if not name.startswith(("tools", "Documentation"))]
    places = [f"{name}/" for name in built if (tree / name / "Makefile").exists()]
    others = [name for name in including if not name.startswith(tuple(places))]
    return sorted([*places, *(name for name in others if _has_source(tree, name))])


def _has_source(tree: Path, name: str) -> bool:
    return any((tree / name).with_suffix(suffix).exists() for suffix in (".c", ".S"))


def checkpatch(plan: Plan, commit: Commit) -> list[str]:
    """The messages of checkpatch.pl for a commit."""
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
            text = error.output
    # If there are messages, checkpatch also prints the patch's name.
    return [line for line in text.splitlines() if re.match(r"(ERROR|WARNING|CHECK):", line)]


def compiling(plan: Plan) -> Plan:
    """The plan for compiling only: of the kernel with checked.config, which has more code and no
    debugging information, so that the object files of the guests' kernel stay. The small crash
    kernel is as it is. Pure."""
    if not plan.has_modules:
        return plan
    options = kconfig.merge([kconfig.render(plan.options), fragment("checked")])
    objects = plan.objects.with_name(f"{plan.objects.name}-checked")
    return replace(plan, options=options, objects=objects)


def _compiled(plan: Plan, commit: Commit) -> Path:
    """The file that says that this commit was compiled, named after all that this depends on."""
    parts = [
        git(plan.tree, "rev-parse", f"{commit.id}^{{tree}}"),
        *touched(commit.patch.read_text()),
        kconfig.render(plan.options),
        output([f"{plan.architecture.prefix}gcc", "--version"]).splitlines()[0],
        Path(__file__).read_text(),
    ]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return plan.result.parent / "compiled" / key


def compile_commit(plan: Plan, commit: Commit) -> None:
    """Compile what a commit touches, once: a run that was interrupted goes on where it was.

    Raises KernelError with the compiler's messages.
    """
    finished, plan = plan.objects, compiling(plan)
    done = _compiled(plan, commit)
    if done.exists():
        return
    with locked(plan):
        checkout(plan.tree, commit.id)
        wanted = targets(touched(commit.patch.read_text()), plan.tree, finished)
        # Options that later commits add are unknown here, and are ignored.
        configure(plan, plan.options, strict=False)
        if not plan.has_modules:
            make(plan, plan.architecture.target, log="check.log")
        elif wanted:
            make(plan, "prepare", "modules_prepare", log="check.log")
            # Kbuild calls itself for one target after the other if some are not of this kind.
            make(plan, *wanted, log="check.log")
    done.parent.mkdir(exist_ok=True)
    done.write_text(f"{commit.series}/{commit.patch.name}\n")


def unmet_user_options(plan: Plan) -> list[str]:
    """The options of tinykdump.config that Kconfig changes on top of the default configuration."""
    objects = plan.objects.with_name(f"{plan.objects.name}-defconfig")
    objects.mkdir(parents=True, exist_ok=True)
    text = fragment("tinykdump")
    with locked(plan):
        checkout(plan.tree, plan.commit)
        output(["make", f"O={objects}", "defconfig"], cwd=plan.tree)
        config = objects / ".config"
        config.write_text(config.read_text() + text)
        output(["make", f"O={objects}", "olddefconfig"], cwd=plan.tree)
    return kconfig.unmet(kconfig.parse(text), kconfig.parse(config.read_text()))
