# SPDX-License-Identifier: GPL-2.0-or-later
"""The series on arm64: the kernel is built with a cross compiler, and runs in QEMU."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kernel.architectures import ARM64
from kernel.build import SERIES, Plan, Request
from kernel.releases import Release
from tests.kernel import scripts
from tests.kernel.boots import Boots
from tests.kernel.scenarios import KEXEC_CMA
from tests.kernel.scripts import Outcome, Scenario
from tests.kernel.versions import RELEASES, available
from tests.vmtest.kernels import Kernel
from tests.vmtest.rootfs import Root

# The releases with the series that arm64 needs in addition.
HAVE_IT = [each for each in RELEASES if (SERIES / each.name / ARM64.series[0]).is_dir()]

# The sizes, with and without an area, and crash kernels that are loaded by both system calls.
NAMES = (
    "area-by-default", "area-by-parameter", "area-below-4g", "small-machine", "no-area", "static",
    "static-wins", "loaded", "crash-file-load", "crash-load", "crash-no-area",
    "crash-load-no-area",
)  # fmt: skip
# The processor is emulated, with another instruction set than the host's.
SLOWER = 3

Boot = Callable[[Scenario], Outcome]


@pytest.fixture(scope="module", params=HAVE_IT, ids=lambda release: release.name)
def wanted(request: pytest.FixtureRequest) -> Request:
    release: Release = available(request.param)
    return Request(release, architecture=ARM64)


@pytest.fixture(scope="module")
def plan(kernel_plan: Callable[[Request], Plan], wanted: Request) -> Plan:
    return kernel_plan(wanted)


@pytest.fixture(scope="module")
def built(build_kernel: Callable[[Request], Kernel], wanted: Request) -> Kernel:
    return build_kernel(wanted)


@pytest.fixture(scope="module")
def boot(
    plan: Plan, built: Kernel, foreign_root: Root, tmp_path_factory: pytest.TempPathFactory
) -> Boot:
    programs = scripts.of_root(foreign_root, f"{ARM64.prefix}gcc")
    boots = Boots(tmp_path_factory.mktemp("arm64"), programs)
    image: Path = boots.image(plan, built)
    return lambda scenario: boots.boot(
        replace(scenario, seconds=SLOWER * scenario.seconds), built, image
    )


@pytest.mark.parametrize(
    "scenario", [each for each in KEXEC_CMA if each.name in NAMES], ids=lambda each: each.name
)
def test_script(boot: Boot, scenario: Scenario) -> None:
    assert boot(scenario).failures == ()
