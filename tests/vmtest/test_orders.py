# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that runs only the small init, on the distribution's kernel."""

from collections.abc import Iterator

import pytest

from tests.vmtest import initramfs, orders
from tests.vmtest.errors import GuestFailed, MachineLost
from tests.vmtest.machine import Machine
from tests.vmtest.orders import Guest
from tests.vmtest.rootfs import Root


@pytest.fixture(scope="module")
def machine(root: Root, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    directory = tmp_path_factory.mktemp("small")
    order = initramfs.load_order(root.modules, ("i6300esb",))
    tree = initramfs.small(directory / "tree", root.busybox, order)
    tree.program("kexec")
    tree.pack(directory / "small.img", compressed=True)
    return Machine(root.kernel, directory / "small.img", root.machine().append, hand="init")


@pytest.fixture(scope="module")
def guest(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    with orders.running(machine, tmp_path_factory.mktemp("guest")) as running:
        running.boot("normal")
        yield running


def test_order_is_answered(guest: Guest) -> None:
    assert guest.run("echo out; echo err >&2") == "out\nerr\n"


def test_failing_order_is_the_guests_failure(guest: Guest) -> None:
    with pytest.raises(GuestFailed, match="no such") as caught:
        guest.run("echo no such; exit 3")
    assert caught.value.result.status == 3


def test_modules_are_loaded_and_programs_find_their_libraries(guest: Guest) -> None:
    assert "i6300esb" in guest.run("cat /proc/modules")
    assert "kexec" in guest.run("kexec --version")


def test_order_without_an_answer_is_a_lost_machine(guest: Guest) -> None:
    with pytest.raises(MachineLost, match="timeout while waiting for the end of 'sleep 3'"):
        guest.run("sleep 3", seconds=0.5)
    guest._line(60, "the late answer")


def test_reboot_is_seen(guest: Guest) -> None:
    guest.post("reboot -f")
    guest.boot("normal")
    assert guest.run("echo again") == "again\n"


def test_wrong_kernel_is_named(guest: Guest) -> None:
    guest.post("reboot -f")
    with pytest.raises(AssertionError, match="expected the crash kernel"):
        guest.boot("crash")


def test_poweroff_is_a_lost_machine(guest: Guest) -> None:
    guest.post("poweroff -f")
    with pytest.raises(MachineLost, match="QEMU ended with status 0"):
        guest.boot("normal")
