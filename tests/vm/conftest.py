# SPDX-License-Identifier: GPL-2.0-or-later
"""What the VM tests share. A tool that is missing fails them: a skipped test looks like a pass."""

import shutil
from pathlib import Path

import pytest

from tests.vm import rootfs

TOOLS = (
    "cpio", "debugfs", "depmod", "dpkg-deb", "mcopy", "mke2fs", "mkfs.vfat", "mmdebstrap",
    "prlimit", "qemu-img", "qemu-system-x86_64", "setpriv", "sfdisk", "zstd",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.vm)


@pytest.fixture(scope="session")
def root() -> rootfs.Root:
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        pytest.fail(f"the VM tests need {', '.join(missing)} (run: make deps)", pytrace=False)
    return rootfs.build()
