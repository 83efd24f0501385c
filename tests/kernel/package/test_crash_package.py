# SPDX-License-Identifier: GPL-2.0-or-later
"""kernel-tinykdump-crash: its files, its signature, and rpm that installs and erases it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.build import Plan, Request
from tests.kernel.package import packages
from tests.kernel.package.packages import CrashPackage
from tests.rpm import repository
from tests.rpm.test_install import OFFLINE, SECONDS, names
from tests.vm import service
from tests.vmtest import kernels
from tests.vmtest.rootfs import Recipe, Root
from tests.vmtest.vm import running
from tinykdump.kernels import SMALL_IMAGE

# The first test waits for the kernel to be built.
pytestmark = pytest.mark.timeout(2 * 3600)

BYTES = 5_000_000
LICENSES = "/usr/share/licenses/kernel-tinykdump-crash"
# kernel-install would run it.
WITNESS = "#!/bin/sh\necho witness $*\n"


@pytest.fixture(scope="module")
def made(kernel_plan: Callable[[Request], Plan]) -> CrashPackage:
    return packages.build_crash(kernel_plan(kernels.SMALL))


def rpm(package: Path, *options: str) -> str:
    command = ["rpm", "--query", "--package", *options, str(package)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_its_files_and_scriptlets(made: CrashPackage) -> None:
    """Nothing is where kernel-install or a boot loader looks."""
    top = SMALL_IMAGE.parent
    assert rpm(made.package, "--list").split() == [
        str(top.parent), str(top), *(str(top / name) for name in (
            "config", "modules.builtin", "modules.builtin.modinfo", "vmlinuz")),
        LICENSES, f"{LICENSES}/COPYING",
    ]  # fmt: skip
    assert "kernel-install" not in rpm(made.package, "--scripts")
    assert not [line for line in rpm(made.package, "--provides").split() if line == "kernel"]
    assert made.package.stat().st_size <= BYTES


def test_its_kernel_is_signed_with_the_key_of_the_build(made: CrashPackage, tmp_path: Path) -> None:
    content = subprocess.run(["rpm2cpio", made.package], check=True, capture_output=True).stdout
    subprocess.run(["cpio", "--extract", "--make-directories", "--quiet"], input=content,
                   cwd=tmp_path, check=True)  # fmt: skip
    image = tmp_path / str(SMALL_IMAGE).lstrip("/")
    subprocess.run(["sbverify", "--cert", made.certificate, image], check=True)


def test_rpm_installs_and_erases_it(
    made: CrashPackage, build_root: Callable[[Recipe], Root], tmp_path: Path
) -> None:
    """The machine is armed with it, and the boot loader does not see it."""
    root = build_root(repository.RPM4)
    base = (repository.BASE, repository.busybox(root.busybox, "1"))
    stand_ins = tuple(repository.stand_in(each, tmp_path) for each in base)
    ours = repository.build(repository.REPOSITORY, repository.work_tree(), tmp_path / "1")
    program = repository.binary(ours)
    with running(root.machine("crashkernel=64M"), tmp_path / "vm") as vm:
        vm.wait_for_agent()
        vm.put(repository.archive((*stand_ins, program, made.package)), "/run/packages.tar")
        vm.run(["tar", "-C", "/", "-xf", "/run/packages.tar"])
        vm.put(WITNESS.encode(), "/etc/kernel/install.d/59-witness.install", mode=0o755)
        vm.run(["mkdir", "-p", "/etc/default/tinykdump.d"])
        vm.put(b"[image]\nkernel = small\n", service.DROP_IN)
        vm.run(["rpm", "-i", *names((*stand_ins, program))], timeout=SECONDS, env=OFFLINE)
        boot = vm.run(["find", "/boot", "/lib/modules", "-maxdepth", "1"]).text

        done = vm.run(["rpm", "-i", *names((made.package,))], timeout=SECONDS, env=OFFLINE)
        assert "witness" not in done.text + done.stderr.decode()
        assert vm.run(["find", "/boot", "/lib/modules", "-maxdepth", "1"]).text == boot
        (kver,) = vm.run(["ls", "/var/lib/tinykdump/images"]).text.split()
        assert "-tinykdump-crash-" in kver
        status = json.loads(vm.run(["tinykdump", "status", "--json"]).text)
        assert (status["armed"], status["loaded"]) == (True, kver)

        vm.run(["rpm", "-e", "kernel-tinykdump-crash"], timeout=SECONDS, env=OFFLINE)
        assert vm.run(["ls", str(SMALL_IMAGE.parent)], check=False).status != 0
        said = vm.run(["tinykdump", "status"], check=False).text
        assert "the small crash kernel is not installed" in said
