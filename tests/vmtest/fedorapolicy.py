# SPDX-License-Identifier: GPL-2.0-or-later
"""Fedora's own SELinux policy, built from its source as Fedora's spec does.

The source is given by path, because no registry that these tests use has it: a checkout of
fedora-selinux/selinux-policy with container.te, container.if and container.fc of
containers/container-selinux in policy/modules/contrib.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.vmtest import cache

SOURCE = "TINYKDUMP_FEDORA_POLICY"
NAME = "targeted"
CONTAINER = "policy/modules/contrib/container.te"

# selinux-policy.spec: makeCmds and installCmds.
_MAKE = ("make", "UNK_PERMS=allow", f"NAME={NAME}", "TYPE=mcs", "DISTRO=redhat", "UBAC=n",
         "DIRECT_INITRC=n", "MONOLITHIC=n", "MLS_CATS=1024", "MCS_CATS=1024",
         "QUIET=y")  # fmt: skip
_CONFIGURATION = ("booleans.conf", "modules.conf")


def source() -> Path | None:
    """Where the environment says that the source is. Raises FileNotFoundError if it is not all."""
    named = os.environ.get(SOURCE, "")
    if not named:
        return None
    if not (Path(named) / CONTAINER).exists():
        raise FileNotFoundError(f"{SOURCE}={named} has no {CONTAINER} (see HACKING.md)")
    return Path(named)


def built() -> Path:
    """build() of that source.

    Skips the test if the environment names none: Debian has no package of it.
    """
    if (given := source()) is None:
        pytest.skip(f"{SOURCE} does not name the source of Fedora's policy")
    return build(given)


def build(given: Path) -> Path:
    """A directory with what a root gets: etc/selinux and usr/share/selinux.

    Takes two minutes of CPU time, and is cached.
    """
    files = sorted(
        path for path in given.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(given).parts
    )  # fmt: skip
    key = cache.key([[str(path.relative_to(given)), path] for path in files], _MAKE, 1)
    return cache.entry("fedora-policy", key, lambda directory: _build(given, directory))


def _build(given: Path, directory: Path) -> None:
    tree = directory / "source"
    shutil.copytree(given, tree, ignore=shutil.ignore_patterns(".git"))
    _make(tree, "bare")
    _make(tree, "conf")
    for name in _CONFIGURATION:
        shutil.copy(tree / "dist" / NAME / name, tree / "policy")
    with (tree / "policy/modules.conf").open("a", encoding="ascii") as chosen:
        chosen.write("container = module\n")
    _make(tree, "--jobs=2", "base.pp", "modules")
    _make(tree, f"DESTDIR={directory}", "install", "install-appconfig")
    contexts = directory / "etc/selinux" / NAME / "contexts"
    shutil.copy(tree / "config/file_contexts.subs_dist", contexts / "files")
    shutil.copy(tree / "dist/customizable_types", contexts)
    shutil.rmtree(tree)


def _make(tree: Path, *words: str) -> None:
    command = [*_MAKE, *words]
    done = subprocess.run(command, cwd=tree, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"make {' '.join(words)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
