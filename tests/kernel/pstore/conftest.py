# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of the kernel with the series and of the one without."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.build import Request
from kernel.releases import Release
from tests.kernel.pstore import image
from tests.kernel.pstore.machine import COMMON, Guest
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import Machine


def _machine(kernel: Kernel, directory: Path) -> Machine:
    image.build(kernel, directory / "initramfs")
    return Machine(
        kernel.directory / "vmlinuz", directory / "initramfs", COMMON, cpus=2, model="pc",
        hand="init",
    )  # fmt: skip


@pytest.fixture(scope="session")
def patched(
    build_kernel: Callable[[Request], Kernel], release: Release,
    tmp_path_factory: pytest.TempPathFactory,
) -> Machine:  # fmt: skip
    return _machine(build_kernel(Request(release)), tmp_path_factory.mktemp("patched"))


@pytest.fixture(scope="session")
def stock(
    build_kernel: Callable[[Request], Kernel], release: Release,
    tmp_path_factory: pytest.TempPathFactory,
) -> Machine:  # fmt: skip
    return _machine(build_kernel(Request(release, series=[])), tmp_path_factory.mktemp("stock"))


@pytest.fixture
def token() -> str:
    return f"token-{secrets.token_hex(8)}"


def no_complaints(machine: Guest) -> None:
    """Nothing the kernels said is a warning of theirs."""
    for text in ("WARNING:", "BUG:", "INFO: possible", "INFO: suspicious", "Oops:"):
        assert text not in machine.console, machine.console[machine.console.index(text) :][:3000]
