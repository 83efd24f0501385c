# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures for machines, and the marks that follow from them.

`-m "not vm"` boots nothing, and `-m "not kernel"` needs no source of Linux. A missing tool fails
the tests, because a skipped test looks like a pass.
"""

import shutil
from collections.abc import Callable, Generator

import pytest

from kernel.build import Plan, Request, make_plan
from tests.vmtest import foreign, kernels, qemu, rootfs
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import AARCH64
from tests.vmtest.rootfs import Recipe, Root

TOOLS = (
    "cpio", "debugfs", "depmod", "dpkg-deb", "gcc", "make", "mcopy", "mke2fs", "mkfs.vfat",
    "mmdebstrap", "musl-gcc", "openssl", "prlimit", "qemu-img", "qemu-system-x86_64", "sbattach",
    "sbsign", "setpriv", "sfdisk", "zstd",
)  # fmt: skip

# A test that uses one of these fixtures, directly or not, boots machines ...
BOOTS = frozenset({"build_kernel", "build_root", "foreign_root"})
# ... and one that uses one of these needs the source of Linux with the series applied.
BUILDS = frozenset({"build_kernel", "kernel_plan"})
# Time limits of a test: guests beside builds are slow, and the first test builds the kernel.
BOOT_SECONDS = 3600
BUILD_SECONDS = 4 * 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that boot machines and those that build kernels."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        seconds = 0
        if fixtures & BOOTS:
            item.add_marker("vm")
            seconds = BOOT_SECONDS
        if fixtures & BUILDS:
            item.add_marker("kernel")
            seconds = BUILD_SECONDS
        if seconds and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(seconds))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let no machine start in a test without the mark vm."""
    before = qemu.unmarked
    qemu.unmarked = "" if item.get_closest_marker("vm") else item.nodeid
    try:
        return (yield)
    finally:
        qemu.unmarked = before


@pytest.fixture(scope="session")
def build_root() -> Callable[[Recipe], Root]:
    """A function that builds the root file system of a recipe, or finds it in the cache."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        pytest.fail(f"the VM tests need {', '.join(missing)} (run: make deps)", pytrace=False)
    return rootfs.build


@pytest.fixture(scope="session")
def root(build_root: Callable[[Recipe], Root]) -> Root:
    """The usual root file system: Debian with its kernel."""
    return build_root(Recipe())


@pytest.fixture(scope="session")
def foreign_root() -> Root:
    """Debian with its kernel, of another architecture than this machine's."""
    if not shutil.which(AARCH64.program):
        pytest.fail(f"this test needs {AARCH64.program} (run: tools/deps arm64)", pytrace=False)
    return foreign.build()


@pytest.fixture(scope="session")
def kernel_plan() -> Callable[[Request], Plan]:
    """A function that applies the series to the source of Linux."""
    return make_plan


@pytest.fixture(scope="session")
def build_kernel() -> Callable[[Request], Kernel]:
    """A function that builds a kernel, or finds it in the cache."""
    return kernels.build


@pytest.fixture(scope="session")
def kernel(build_kernel: Callable[[Request], Kernel]) -> Kernel:
    """The kernel with all series."""
    return build_kernel(Request())
