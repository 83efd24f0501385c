# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: the source of Linux with the series applied, and the kernels built from it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from kernel.build import Plan, Request
from kernel.releases import Release
from tests.kernel.boots import Boots
from tests.kernel.versions import RELEASES, available
from tests.vmtest.kernels import Kernel


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for single runs; see kernel/README.md."""
    group = parser.getgroup("kernel", "the kernel series (tests/kernel)")
    group.addoption("--kernel-debug", action="store_true", help="with lockdep, KASAN and more")
    group.addoption(
        "--kernel-series", metavar="NAME,...", help="with these series only, in this order"
    )


@pytest.fixture(scope="session", params=RELEASES, ids=lambda release: release.name)
def release(request: pytest.FixtureRequest) -> Release:
    """Each release, or the one that TINYKDUMP_KERNEL_SERIES names."""
    return available(request.param)


@pytest.fixture(scope="session")
def usual(pytestconfig: pytest.Config) -> Request:
    """The kernel of the command line; by default the guests' kernel with all series."""
    only = pytestconfig.getoption("kernel_series", None)
    debug = pytestconfig.getoption("kernel_debug", False)
    fragments = (*Request().fragments, *(["debug"] if debug else []))
    return Request(series=only.split(",") if only else None, fragments=fragments)


@pytest.fixture(scope="session")
def wanted(usual: Request, release: Release) -> Request:
    """The usual kernel, of each release."""
    return replace(usual, release=release)


@pytest.fixture(scope="session")
def plan(kernel_plan: Callable[[Request], Plan], wanted: Request) -> Plan:
    return kernel_plan(wanted)


@pytest.fixture(scope="session")
def built(build_kernel: Callable[[Request], Kernel], wanted: Request) -> Kernel:
    return build_kernel(wanted)


@pytest.fixture(scope="session")
def without_series(build_kernel: Callable[[Request], Kernel], wanted: Request) -> Kernel:
    return build_kernel(replace(wanted, series=[]))


@pytest.fixture(scope="session")
def boots(tmp_path_factory: pytest.TempPathFactory) -> Boots:
    return Boots(tmp_path_factory.mktemp("boots"))
