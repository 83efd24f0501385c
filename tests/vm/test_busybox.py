# SPDX-License-Identifier: GPL-2.0-or-later
"""The crash kernel with the busybox of other distributions, built here as they configure it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import fakehost
from tests.vm import service, vmcore
from tests.vmtest import busybox, stick
from tests.vmtest.busybox import FEDORA, OPENSUSE, Flavor
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import VM
from tinykdump.image.programs import APPLETS

REPOSITORY = Path(__file__).parents[2]
# Debian's own would be found, too.
OTHERS = "/usr/bin/busybox /usr/sbin/busybox /usr/bin/busybox-static"

# Beside builds.
CRASH_SECONDS = 1500.0

NAMES = ("fedora", "opensuse")
flavors = pytest.mark.parametrize("flavor", (FEDORA, OPENSUSE), ids=NAMES)

# It looks for the tools.
pytestmark = pytest.mark.usefixtures("build_root")


@flavors
def test_it_has_what_the_crash_side_calls(flavor: Flavor) -> None:
    command = [str(busybox.build(flavor)), "--list"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True)
    assert set(APPLETS) <= set(listed.stdout.split())


@flavors
def test_the_tests_of_the_crash_side_pass(flavor: Flavor) -> None:
    command = [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "tests/crash"]
    environment = os.environ | {fakehost.BUSYBOX: str(busybox.build(flavor))}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@flavors
def test_it_saves_a_dump(
    flavor: Flavor, vm: VM, root: Root, keys: service.KeyPair, tmp_path: Path
) -> None:
    """It inserts Debian's modules, which are .ko.xz, as Fedora's and openSUSE's kernels have."""
    assert any(root.modules.rglob("usb-storage.ko.xz"))
    vm.shell(f"rm -f {OTHERS}")
    vm.put(busybox.build(flavor), flavor.place, mode=0o755)
    vm.run(["tinykdump", "--load"])
    used = {each["source"] for each in service.manifest(vm, root.kver)["inputs"]}
    assert flavor.place in used

    mark = service.mark()
    service.crash(vm, mark)
    vm.wait_for_reboot(CRASH_SECONDS)
    said = vm.console.rpartition("Linux version")[2]
    assert "could not load" not in said
    image = stick.Image(vm.machine.stick("stick").image, "vfat")
    vm.quit()
    (dump,) = service.dumps(image, tmp_path / "stick")
    assert dump.complete
    service.restore(dump, tmp_path / "restored", keys.home)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")
