"""Kernels are built by kernel/, with the series and without, unless the environment names them.

TINYKDUMP_TEST_KERNEL and TINYKDUMP_TEST_KERNEL_STOCK are directories as "python3 -m kernel build"
makes them: vmlinuz, and lib/modules.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.pstore import image
from tests.kernel.pstore.machine import Hardware, Machine
from tests.vmtest.kernels import Kernel


def _kernel(build: Callable[..., Kernel], variable: str, *options: str) -> Path:
    value = os.environ.get(variable)
    return Path(value) if value else build(*options).directory


def _hardware(kernel: Path, directory: Path) -> Hardware:
    initramfs = directory / "initramfs.gz"
    initramfs.write_bytes(image.build(kernel))
    return Hardware(kernel=kernel, initramfs=initramfs)


@pytest.fixture(scope="session")
def patched(
    build_kernel: Callable[..., Kernel], tmp_path_factory: pytest.TempPathFactory
) -> Hardware:
    kernel = _kernel(build_kernel, "TINYKDUMP_TEST_KERNEL")
    return _hardware(kernel, tmp_path_factory.mktemp("patched"))


@pytest.fixture(scope="session")
def stock(
    build_kernel: Callable[..., Kernel], tmp_path_factory: pytest.TempPathFactory
) -> Hardware:
    kernel = _kernel(build_kernel, "TINYKDUMP_TEST_KERNEL_STOCK", "--stock")
    return _hardware(kernel, tmp_path_factory.mktemp("stock"))


@pytest.fixture
def token() -> str:
    return f"token-{secrets.token_hex(8)}"


def no_complaints(machine: Machine) -> None:
    """Nothing the kernels said is a warning of theirs."""
    for text in ("WARNING:", "BUG:", "INFO: possible", "INFO: suspicious", "Oops:"):
        assert text not in machine.log, machine.log[machine.log.index(text) :][:3000]
