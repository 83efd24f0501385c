# SPDX-License-Identifier: GPL-2.0-or-later
"""The package under rpm 6 and dnf5, which Debian's next release has."""

from pathlib import Path

import pytest

from tests.rpm import repository
from tests.rpm.repository import PLACE
from tests.rpm.test_install import OFFLINE, SECONDS, complaints, left_behind
from tests.vm import service
from tests.vmtest import rootfs
from tests.vmtest.kernels import Kernel
from tests.vmtest.vm import running
from tinykdump import __version__

# The root of that release may have to be made first.
pytestmark = pytest.mark.timeout(3600)

# Its plugin "local" keeps a repository of its own with createrepo_c, which is not there.
DNF5 = ("dnf5", "-y", "--disable-plugin=local", "--repo=packages", "--no-gpgchecks",
        "--releasever=1", f"--repofrompath=packages,file://{PLACE}")  # fmt: skip


def test_install_upgrade_remove(kernel: Kernel, tmp_path: Path) -> None:
    root = rootfs.build(repository.RPM6)
    base = (repository.BASE, repository.busybox(root.busybox, "1"))
    stand_ins = tuple(repository.stand_in(made, tmp_path / "packages") for made in base)
    built = repository.build(repository.REPOSITORY, repository.work_tree(), tmp_path / "1")
    first = repository.binary(built)
    second = repository.changed(tmp_path / "clone", tmp_path / "2")
    with running(kernel.machine(root), tmp_path / "vm") as vm:
        assert vm.run(["rpm", "--version"]).text.startswith("RPM version 6.")
        vm.put(repository.archive((first, second, *stand_ins)), "/run/packages.tar")
        vm.run(["tar", "-C", "/", "-xf", "/run/packages.tar"])

        def dnf5(*words: str) -> None:
            done = vm.run([*DNF5, *words], timeout=SECONDS, env=OFFLINE)
            print(f"dnf5 {words[0]}: {done.seconds:.1f} s\n{done.text}{done.stderr.decode()}")
            log = (done.text + done.stderr.decode()).splitlines()
            # Nobody signs what is built here.
            assert complaints(line for line in log if "skipped OpenPGP checks" not in line) == []

        running_kernel = vm.run(["uname", "-r"]).text.strip()
        dnf5("install", f"tinykdump-{__version__}-1")
        assert f"armed with {running_kernel}\n" in vm.run(["tinykdump", "status"]).text
        vm.run(["rpm", "-V", "tinykdump"])
        before = service.manifest(vm, running_kernel)["plan"]
        dnf5("upgrade", "tinykdump")
        assert service.manifest(vm, running_kernel)["plan"] != before
        assert vm.run(["tinykdump", "status"]).status == 0
        dnf5("remove", "tinykdump")
        assert service.reserved(vm) == 0
        assert left_behind(vm) == ["/var/lib/tinykdump"]
