# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel packages, built by the spec and kept in the cache; kernel-tinykdump with vm.config."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernel.build import Plan, locked
from kernel.tree import checkout
from tests.rpm import repository
from tests.vmtest import cache

SPEC = repository.REPOSITORY / "tinykdump.spec"
CONFIGS = repository.REPOSITORY / "kernel/config"


@dataclass(frozen=True)
class KernelPackage:
    """The packages of one release, as files."""

    directory: Path
    version: str
    release: str

    @property
    def kver(self) -> str:
        return f"{self.version}-{self.release}.x86_64+tinykdump"

    @property
    def nevra(self) -> str:
        return f"kernel-tinykdump-{self.version}-{self.release}.x86_64"

    @property
    def kernel(self) -> Path:
        return self.directory / f"{self.nevra}.rpm"

    @property
    def debuginfo(self) -> Path:
        return self.directory / self.kernel.name.replace("tinykdump-", "tinykdump-debuginfo-")

    def unpack(self, target: Path) -> Path:
        """Its lib/modules/KVER, with what depmod makes of it."""
        target.mkdir(parents=True)
        cpio = subprocess.run(["rpm2cpio", self.kernel], check=True, capture_output=True).stdout
        subprocess.run(["cpio", "--extract", "--make-directories", "--quiet"], input=cpio,
                       cwd=target, check=True)  # fmt: skip
        subprocess.run(["depmod", "--basedir", target, self.kver], check=True)
        return target / "lib/modules" / self.kver


def build(plan: Plan, release: str) -> KernelPackage:
    """The packages of that release, built now where they are not in the cache.

    The first build takes as long as a kernel does; another release goes on from its objects.
    """
    files = [SPEC, *(CONFIGS / f"{name}.config" for name in ("vm", "tinykdump", "package"))]
    key = cache.key(plan.commit, plan.source.sha256, files, release)
    entry = cache.entry("kernel-rpm", key, lambda directory: _build(plan, release, directory))
    return KernelPackage(entry, plan.source.version, release)


def _build(plan: Plan, release: str, directory: Path) -> None:
    macros = {
        "kernel_config": CONFIGS / "vm.config",
        "kernel_minimal": 1,
        "baserelease": release,
        # What rpm does by default takes minutes for vmlinux, and is read once.
        "_binary_payload": "w3.zstdio",
    }
    _run(plan, directory, "--kernel", macros)


@dataclass(frozen=True)
class CrashPackage:
    """kernel-tinykdump-crash, and the key that its kernel is signed with."""

    directory: Path

    @property
    def package(self) -> Path:
        (found,) = self.directory.glob("kernel-tinykdump-crash-*.x86_64.rpm")
        return found

    @property
    def certificate(self) -> Path:
        return self.directory / "key.pem"


def build_crash(plan: Plan) -> CrashPackage:
    """The small kernel's package alone, signed; built now if it is not in the cache."""
    key = cache.key(plan.commit, plan.source.sha256, SPEC, CONFIGS / "crash.config")
    return CrashPackage(
        cache.entry("crash-rpm", key, lambda directory: _build_crash(plan, directory))
    )


def _build_crash(plan: Plan, directory: Path) -> None:
    key = directory / "key.pem"
    subprocess.run(["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days",
                    "3650", "-subj", "/CN=tinykdump test", "-keyout", key, "-out", key],
                   check=True, capture_output=True)  # fmt: skip
    _run(plan, directory, "--crash-kernel", {"kernel_key": key})


def _run(plan: Plan, directory: Path, option: str, macros: Mapping[str, object]) -> None:
    """Call tools/rpm on the plan's tree, and keep the binary packages."""
    compiler = "ccache gcc" if shutil.which("ccache") else "gcc"
    os.environ.setdefault("CCACHE_DIR", str(plan.objects.parent / "ccache"))
    where = {
        "kernel_cc": compiler,
        "kernel_tree": plan.tree,
        "kernel_objects": plan.objects.with_name(f"{plan.objects.name}-package"),
    }
    defined = (f"--define={name} {value}" for name, value in {**where, **macros}.items())
    with locked(plan):
        checkout(plan.tree, plan.commit)
        built = repository.build(
            repository.REPOSITORY, repository.work_tree(), directory / "build",
            option, "--binary", *defined,
        )  # fmt: skip
    for path in built:
        path.rename(directory / path.name)
    cache.remove(directory / "build")
