# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the kernel for the tests incrementally, and caches it under the hash of its inputs."""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from kernel import architectures, kconfig, releases
from kernel.architectures import ARCHITECTURES, Architecture
from kernel.cache import directory
from kernel.releases import NEWEST, RELEASES, Release
from kernel.run import KernelError, logged, output, say, stopwatch
from kernel.source import NoSourceError, Source, get_source, given_tarball
from kernel.tree import (
    Commit,
    Series,
    apply,
    checkout,
    exclusive,
    find_series,
    git,
    make_tree,
    pristine,
)

HERE = Path(__file__).resolve().parent
SERIES = HERE / "series"
# How many finished kernels to keep in the cache.
KEEP = 8
# The fragments that a kernel begins with: the guests' kernel, which has another one on other
# architectures than x86-64 (architectures.py), and the small crash kernel.
GUESTS = "vm"
CRASH = "crash"
# Series that only the small crash kernel is built with: all other kernels are the same without.
CRASH_ONLY = ("small-sections", "small-watermark")


@dataclass(frozen=True)
class Request:
    """The kernel to build; by default the guests' kernel with all series."""

    # None: the one that TINYKDUMP_KERNEL_SERIES names, or the newest whose source can be had
    release: Release | None = None
    # None: all series that are for this kernel; an empty list: the stock kernel
    series: list[str] | None = None
    # Names of fragments in config/; the first is the base
    fragments: tuple[str, ...] = (GUESTS,)
    # None: that of this machine
    architecture: Architecture | None = None
    # A tarball of the source; None: search for one
    source: Path | None = field(default_factory=given_tarball)
    cache: Path = field(default_factory=directory)
    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)


@dataclass(frozen=True)
class Plan:
    """Everything that a build depends on; the source is unpacked and the series are applied."""

    release: Release
    architecture: Architecture
    source: Source
    tree: Path
    # Contains all series for this release
    directory: Path
    series: tuple[Series, ...]
    commits: tuple[Commit, ...]
    # The first of its fragments
    base: str
    # make's output directory (O=), one for each source and set of fragments
    objects: Path
    options: dict[str, str]
    # The directory for the finished kernel
    result: Path
    jobs: int

    @property
    def has_modules(self) -> bool:
        return self.options.get("CONFIG_MODULES") == "y"

    @property
    def commit(self) -> str:
        return self.commits[-1].id if self.commits else pristine(self.tree)


def fragment(name: str) -> str:
    path = HERE / "config" / f"{name}.config"
    if not path.exists():
        raise KernelError(f"configuration fragment {path} is missing", "restore it with git")
    return path.read_text()


def _fragments(names: tuple[str, ...], series: list[Series]) -> list[str]:
    """The base, then for the guests the fragment of each applied series, then the rest (debug)."""
    guests = series if names[0] != CRASH else []
    own = [one.name for one in guests if (HERE / "config" / f"{one.name}.config").exists()]
    return [fragment(name) for name in (names[0], *own, *names[1:])]


def _result_hash(source: Source, files: str, options: dict[str, str], compiler: str) -> str:
    parts = [source.sha256, files, kconfig.render(options), compiler]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def find_source(request: Request) -> tuple[Release, Source]:
    """The release to build, and its source. Raises NoSourceError if nobody has it."""
    directory = request.cache / "kernel/source"
    release = request.release or releases.chosen()
    if not release and not request.source:
        return _newest_source(directory)
    release = release or NEWEST
    return release, get_source(release, directory, request.source)


# The places are asked once, not for each kernel of the tests.
@cache
def _newest_source(directory: Path) -> tuple[Release, Source]:
    """The newest release whose source can be had. Raises NoSourceError for the newest of all."""
    errors = []
    for release in reversed(RELEASES.values()):
        try:
            source = get_source(release, directory, None)
        except NoSourceError as error:
            errors.append(error)
            continue
        for missing in errors:
            say(f"{missing}; going on with Linux {release.name}")
        return release, source
    raise errors[0]


def usual_series(every: list[Series], names: tuple[str, ...], kind: Architecture) -> list[Series]:
    """The series of a kernel with these fragments, without those of other kinds of kernels."""
    left_out = {name for one in ARCHITECTURES.values() if one != kind for name in one.series}
    if names[0] != CRASH:
        left_out.update(CRASH_ONLY)
    return [one for one in every if one.name not in left_out]


def based(names: tuple[str, ...], kind: Architecture) -> tuple[str, ...]:
    """The fragments with the base for that architecture. Raises KernelError if it has none."""
    if names[0] == GUESTS:
        return (kind.guests, *names[1:])
    if kind != architectures.X86_64:
        raise KernelError(
            f"there is no small crash kernel for {kind.name}", "build the guests' kernel"
        )
    return names


def make_plan(request: Request) -> Plan:
    kind = request.architecture or architectures.native()
    fragments = based(request.fragments, kind)
    base = request.cache / "kernel"
    release, source = find_source(request)
    tree = make_tree(source, base / "tree")
    every = SERIES / release.name
    series = find_series(every, request.series)
    if request.series is None:
        series = usual_series(series, fragments, kind)
    commits = apply(tree, series)
    options = kconfig.merge(_fragments(fragments, series))
    for name in release.without:
        options.pop(f"CONFIG_{name}", None)
    compiler = output([f"{kind.prefix}gcc", "--version"]).splitlines()[0]
    commit = commits[-1].id if commits else pristine(tree)
    # Git's hash of all files: the messages of commits do not change a kernel.
    files = git(tree, "rev-parse", f"{commit}^{{tree}}")
    return Plan(
        release=release,
        architecture=kind,
        source=source,
        tree=tree,
        directory=every,
        series=tuple(series),
        commits=tuple(commits),
        base=fragments[0],
        objects=base / "build" / "-".join([tree.name, *fragments]),
        options=options,
        result=base / _result_hash(source, files, options, compiler),
        jobs=request.jobs,
    )


def locked(plan: Plan) -> AbstractContextManager[None]:
    """Allow only one build at a time in a tree."""
    lock = plan.tree.with_name(f"{plan.tree.name}.lock")
    return exclusive(lock, "waiting for another build in the same tree")


# Called with the number of finished objects and the number of all objects.
Progress = Callable[[int, int], None]


def objects_in(directory: Path) -> int:
    """The number of object files; an interrupted build keeps them."""
    return sum(name.endswith(".o") for _, _, names in os.walk(directory) for name in names)


def make(
    plan: Plan,
    *targets: str,
    log: str = "build.log",
    watch: Callable[[], None] | None = None,
) -> None:
    kind = plan.architecture
    compiler = f"{'ccache ' if shutil.which('ccache') else ''}{kind.prefix}gcc"
    env = {
        # Fixed, so that builds are reproducible and make does not link again for a new date.
        "KBUILD_BUILD_TIMESTAMP": "2026-01-01",
        "KBUILD_BUILD_USER": "tinykdump",
        "KBUILD_BUILD_HOST": "localhost",
        "KBUILD_BUILD_VERSION": "1",
        "CCACHE_DIR": os.environ.get("CCACHE_DIR", str(plan.objects.parent / "ccache")),
        # Kbuild writes dependency files anyway, so ccache does not have to run the preprocessor.
        "CCACHE_DEPEND": "1",
        # Keep git's state out of the release: the hash identifies the build.
        "LOCALVERSION": "",
    }
    # fmt: off
    argv = ["make", f"-j{plan.jobs}", f"O={plan.objects}", f"ARCH={kind.kbuild}",
            f"CROSS_COMPILE={kind.prefix}", f"CC={compiler}", *targets]
    # fmt: on
    logged(argv, plan.objects / log, cwd=plan.tree, env=env, watch=watch)


def configure(plan: Plan, options: dict[str, str], *, strict: bool = True) -> None:
    """Write a .config with only `options` on; keep its time if it does not change."""
    plan.objects.mkdir(parents=True, exist_ok=True)
    wanted = plan.objects / "wanted.config"
    wanted.write_text(kconfig.render(options))
    config = plan.objects / ".config"
    before = config.read_text() if config.exists() else None
    stat = config.stat() if config.exists() else None
    make(plan, f"KCONFIG_ALLCONFIG={wanted}", "allnoconfig", log="config.log")
    if stat and config.read_text() == before:
        os.utime(config, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    missing = kconfig.unmet(options, kconfig.parse(config.read_text()))
    if strict and missing:
        raise KernelError(
            f"Kconfig refused {'; '.join(missing)}", "check the dependencies of these options"
        )


def _publish(plan: Plan, release: str) -> None:
    """Copy the kernel to a temporary directory, and rename that when it is complete."""
    new = plan.result.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    if plan.has_modules:
        make(plan, f"INSTALL_MOD_PATH={new}", "modules_install", log="install.log")
        for link in ("build", "source"):
            (new / "lib/modules" / release / link).unlink(missing_ok=True)
    for source, target in {
        plan.architecture.image: "vmlinuz",
        "vmlinux": "vmlinux",
        "System.map": "System.map",
        "modules.builtin": "modules.builtin",
        "modules.builtin.modinfo": "modules.builtin.modinfo",
        ".config": "config",
    }.items():
        shutil.copy2(plan.objects / source, new / target)
    (new / "release").write_text(f"{release}\n")
    shutil.rmtree(plan.result, ignore_errors=True)
    new.rename(plan.result)


def _prune(directory: Path) -> None:
    """Keep only the kernels used last: those with debugging information are large."""
    results = sorted(
        directory.glob("*/release"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for old in results[KEEP:]:
        shutil.rmtree(old.parent)


def build(plan: Plan, progress: Progress = lambda _done, _all: None) -> Path:
    """Build the kernel if it is not in the cache.

    Returns the directory with vmlinuz, vmlinux, config, System.map, modules.builtin and
    modules.builtin.modinfo and, if it has modules, lib/modules/KVER.
    """

    def watch() -> None:
        expected = plan.release.objects.get(plan.base, plan.release.objects[GUESTS])
        progress(min(objects_in(plan.objects), expected), expected)

    marker = plan.result / "release"
    if not marker.exists():
        names = ", ".join(one.name for one in plan.series) or "no series"
        say(f"building Linux {plan.source.version} with {names} ({len(plan.commits)} patches)")
        with locked(plan), stopwatch("kernel"):
            checkout(plan.tree, plan.commit)
            configure(plan, plan.options)
            make(
                plan,
                plan.architecture.target,
                *(["modules"] if plan.has_modules else []),
                watch=watch,
            )
            _publish(plan, output(["cat", plan.objects / "include/config/kernel.release"]).strip())
        _prune(plan.result.parent)
    marker.touch()
    return plan.result
