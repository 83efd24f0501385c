# SPDX-License-Identifier: GPL-2.0-or-later
"""kernel-tinykdump with vm.config, built by the spec and kept in the cache."""

import os
import shutil
import subprocess
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
    compiler = "ccache gcc" if shutil.which("ccache") else "gcc"
    os.environ.setdefault("CCACHE_DIR", str(plan.objects.parent / "ccache"))
    macros = {
        "kernel_config": CONFIGS / "vm.config",
        "kernel_minimal": 1,
        "kernel_cc": compiler,
        "kernel_tree": plan.tree,
        "kernel_objects": plan.objects.with_name(f"{plan.objects.name}-package"),
        "baserelease": release,
        # What rpm does by default takes minutes for vmlinux, and is read once.
        "_binary_payload": "w3.zstdio",
    }
    with locked(plan):
        checkout(plan.tree, plan.commit)
        built = repository.build(
            repository.REPOSITORY, repository.work_tree(), directory / "build",
            "--kernel", "--binary", *(f"--define={name} {value}" for name, value in macros.items()),
        )  # fmt: skip
    for path in built:
        path.rename(directory / path.name)
    cache.remove(directory / "build")
