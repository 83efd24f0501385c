"""Kernels come from TINYKDUMP_TEST_KERNEL (with the series) and TINYKDUMP_TEST_KERNEL_STOCK.

Each is a directory as "python3 -m kernel build" makes it: vmlinuz, and lib/modules.
"""

import os
import secrets
import shutil
from pathlib import Path

import pytest

from tests.kernel.pstore import image
from tests.kernel.pstore.machine import Hardware, Machine


def _kernel(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} names no kernel")
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    return Path(value)


def _hardware(kernel: Path, directory: Path) -> Hardware:
    initramfs = directory / "initramfs.gz"
    initramfs.write_bytes(image.build(kernel))
    return Hardware(kernel=kernel, initramfs=initramfs)


@pytest.fixture(scope="session")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Hardware:
    return _hardware(_kernel("TINYKDUMP_TEST_KERNEL"), tmp_path_factory.mktemp("patched"))


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Hardware:
    return _hardware(_kernel("TINYKDUMP_TEST_KERNEL_STOCK"), tmp_path_factory.mktemp("stock"))


@pytest.fixture
def token() -> str:
    return f"token-{secrets.token_hex(8)}"


def no_complaints(machine: Machine) -> None:
    """Nothing the kernels said is a warning of theirs."""
    for text in ("WARNING:", "BUG:", "INFO: possible", "INFO: suspicious", "Oops:"):
        assert text not in machine.log, machine.log[machine.log.index(text) :][:3000]
