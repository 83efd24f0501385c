"""Kernels are built by kernel/, with the series and without, unless the environment names them.

TINYKDUMP_TEST_KERNEL and TINYKDUMP_TEST_KERNEL_STOCK are directories as "python3 -m kernel build"
makes them: vmlinuz, and lib/modules.
"""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.pstore import image
from tests.kernel.pstore.machine import Hardware, Machine

REPOSITORY = Path(__file__).parents[3]


def _kernel(variable: str, *options: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        command = [sys.executable, "-m", "kernel", "build", *options]
        done = subprocess.run(
            command, check=True, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        value = done.stdout.splitlines()[-1]
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
    return _hardware(
        _kernel("TINYKDUMP_TEST_KERNEL_STOCK", "--stock"), tmp_path_factory.mktemp("stock")
    )


@pytest.fixture
def token() -> str:
    return f"token-{secrets.token_hex(8)}"


def no_complaints(machine: Machine) -> None:
    """Nothing the kernels said is a warning of theirs."""
    for text in ("WARNING:", "BUG:", "INFO: possible", "INFO: suspicious", "Oops:"):
        assert text not in machine.log, machine.log[machine.log.index(text) :][:3000]
