# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines in pytest: the fixtures that boot them, and the marks that follow these fixtures.

`-m "not vm"` boots nothing, and `-m "not kernel"` needs no source of Linux, wherever a test lies. A
tool that is missing fails the tests: a skipped one looks like a pass.
"""

import shutil
from collections.abc import Callable, Generator

import pytest

from kernel.build import Plan, Request, make_plan
from tests.vmtest import kernels, qemu, rootfs
from tests.vmtest.kernels import Kernel
from tests.vmtest.rootfs import Recipe, Root

TOOLS = (
    "cpio", "debugfs", "depmod", "dpkg-deb", "mcopy", "mke2fs", "mkfs.vfat", "mmdebstrap",
    "prlimit", "qemu-img", "qemu-system-x86_64", "setpriv", "sfdisk", "zstd",
)  # fmt: skip

# Who asks for one of these, by another fixture as well, boots machines ...
BOOTS = frozenset({"build_kernel", "build_root"})
# ... and who asks for one of these needs a source of Linux with the series applied.
BUILDS = frozenset({"build_kernel", "kernel_plan"})
# Of a test: a guest beside builds is slow, and the first test that needs a kernel builds it.
BOOT_SECONDS = 3600
BUILD_SECONDS = 4 * 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what boots and what builds."""
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
    """A machine that no mark tells of does not start."""
    before = qemu.unmarked
    qemu.unmarked = "" if item.get_closest_marker("vm") else item.nodeid
    try:
        return (yield)
    finally:
        qemu.unmarked = before


@pytest.fixture(scope="session")
def build_root() -> Callable[[Recipe], Root]:
    """What makes a root of a recipe, or finds it in the cache."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        pytest.fail(f"the VM tests need {', '.join(missing)} (run: make deps)", pytrace=False)
    return rootfs.build


@pytest.fixture(scope="session")
def root(build_root: Callable[[Recipe], Root]) -> Root:
    """The usual one: Debian with its kernel."""
    return build_root(Recipe())


@pytest.fixture(scope="session")
def kernel_plan() -> Callable[[Request], Plan]:
    """What applies the series to a source of Linux."""
    return make_plan


@pytest.fixture(scope="session")
def build_kernel() -> Callable[[Request], Kernel]:
    """What builds a kernel, or finds it in the cache."""
    return kernels.build


@pytest.fixture(scope="session")
def kernel(build_kernel: Callable[[Request], Kernel]) -> Kernel:
    """The kernel with both series."""
    return build_kernel(Request())
