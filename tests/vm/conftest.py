# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that is ready to crash, with Debian's kernel and crashkernel=."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import service
from tests.vmtest import cache, snapshot, stick
from tests.vmtest.machine import Disk, Machine, Stick
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import VM


@pytest.fixture(scope="module")
def keys() -> service.KeyPair:
    return service.cached_key_pair()


def decoy_image() -> Path:
    """A disk with the label of the stick. It is in the cache, because snapshots refer to it."""

    def build(directory: Path) -> None:
        stick.make(directory / "disk.img", size_mib=64)

    return cache.entry("decoy", cache.key(inspect.getsource(build)), build) / "disk.img"


@pytest.fixture(scope="module")
def machine(root: Root, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine with a stick, one that is too small, and an internal disk with the same label."""
    directory = tmp_path_factory.mktemp("images")
    usual = stick.make(directory / "stick.img")
    small = stick.make(directory / "small.img", size_mib=40)
    return root.machine(
        "crashkernel=192M",
        memory_mib=service.MEMORY_MIB,
        disks=(Disk("root", root.image), Disk("decoy", decoy_image())),
        sticks=(Stick("stick", usual.path), Stick("small", small.path, plugged=False)),
    )


@pytest.fixture(scope="module")
def armed(machine: Machine, root: Root, keys: service.KeyPair) -> Path:
    def arm(vm: VM) -> None:
        # Less than the default margin: the promised figures must be enough.
        service.install(vm, keys=keys, configuration="[crashkernel]\nmargin = 2\n")
        service.kernel_install(vm, "add", root.kver)

    return snapshot.armed(machine, arm, service.archive(), keys.public, inspect.getsource(arm))


@pytest.fixture
def vm(machine: Machine, armed: Path, tmp_path: Path) -> Iterator[VM]:
    with snapshot.resumed(machine, armed, tmp_path / "vm") as awake:
        yield awake
