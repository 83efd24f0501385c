# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump prepare on real USB disks, with another stick and an internal disk beside them."""

import filecmp
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.vm import service
from tests.vm.conftest import decoy_image
from tests.vmtest import stick
from tests.vmtest.machine import Disk, Machine, Stick
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import VM, running
from tinykdump import room

# In MiB; by them the guest tells its two sticks apart.
SIZE, OTHER = 300, 200
CHECKS = {"vfat": "fsck.vfat -n", "exfat": "fsck.exfat -n", "ext4": "e2fsck -f -n"}


@pytest.fixture(scope="module")
def machine(root: Root, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    directory = tmp_path_factory.mktemp("images")
    mine = stick.make(directory / "mine.img", filesystem="ext4", size_mib=SIZE, partitioned=True)
    other = stick.make(directory / "other.img", size_mib=OTHER, partitioned=True)
    stick.write(other, "keep", b"me")
    shutil.copy(other.path, directory / "before.img")
    return root.machine(
        memory_mib=service.MEMORY_MIB,
        disks=(Disk("root", root.image), Disk("decoy", decoy_image())),
        sticks=(Stick("mine", mine.path), Stick("other", other.path)),
    )


@pytest.fixture(scope="module")
def vm(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VM]:
    with running(machine, tmp_path_factory.mktemp("vm")) as awake:
        awake.wait_for_agent()
        service.install(awake)
        awake.shell(
            "modprobe -a xhci_pci usb_storage uas sd_mod vfat nls_cp437 nls_ascii exfat;"
            "until [ -e /sys/class/block/sda1 ] && [ -e /sys/class/block/sdb1 ]; do sleep 0.2; done"
        )
        yield awake


def device(vm: VM, size_mib: int) -> str:
    """The disk of that size."""
    found = vm.shell(f"grep -lx {size_mib * 2048} /sys/class/block/sd?/size").text.split("/")
    return f"/dev/{found[-2]}"


def refused(vm: VM, *words: str) -> str:
    """The one line that a refusal is."""
    done = vm.run(["tinykdump", "prepare", *words], check=False)
    assert (done.status, done.stdout) == (1, b"")
    (line,) = done.stderr.decode().splitlines()
    return line.removeprefix("tinykdump: ")


def test_what_is_refused(vm: VM) -> None:
    other = device(vm, OTHER)
    assert refused(vm, other).startswith("nobody can be asked: there is no terminal (add --yes)")
    assert refused(vm, "--yes", "/dev/vdb").startswith("/dev/vdb is not a disk behind USB (")
    assert refused(vm, "--yes", "/dev/vda").startswith("/dev/vda is not a disk behind USB (")
    assert refused(vm, "--yes", "/dev/none").startswith("/dev/none is not a disk (")
    assert refused(vm, "--yes", f"{other}1").startswith(f"{other}1 is a part of a disk (")
    vm.shell(f"mount -o ro {other}1 /mnt")
    try:
        said = refused(vm, "--yes", other)
    finally:
        vm.run(["umount", "/mnt"])
    assert said == f"{other}1 is mounted on /mnt (umount {other}1 first)"


def test_disks_behind_usb_are_listed(vm: VM) -> None:
    listed = vm.run(["tinykdump", "prepare"]).text
    assert f"{device(vm, SIZE)}  {room.amount(SIZE << 20)}  QEMU" in listed
    assert f"  {device(vm, OTHER)}1  " in listed
    assert "/dev/vd" not in listed


@pytest.mark.parametrize("kind", CHECKS)
def test_a_stick_is_prepared(vm: VM, kind: str) -> None:
    """One after the other, each on what the one before has left."""
    mine = device(vm, SIZE)
    vm.run(["tinykdump", "prepare", "--yes", "--filesystem", kind, mine])
    found = vm.run(["blkid", "-p", "-o", "export", f"{mine}1"]).text.splitlines()
    assert {"LABEL=TINYKDUMP", f"TYPE={kind}"} <= set(found)
    vm.shell(f"{CHECKS[kind]} {mine}1")
    vm.shell(f"mount -t {kind} -o ro {mine}1 /mnt")
    text = vm.shell("cat /mnt/README.txt; umount /mnt; rmdir /run/tinykdump/stick-* || true").text
    assert "crash dumps" in text
    assert vm.shell("hostname").text.strip() in text


def test_the_user_is_asked(vm: VM) -> None:
    """On a terminal; any other answer than the name of the disk changes nothing."""
    mine = device(vm, SIZE)
    before = vm.run(["sha256sum", mine]).text
    ask = ["script", "--quiet", "--return", "--command", f"tinykdump prepare {mine}", "/dev/null"]
    done = vm.run(ask, stdin=b"yes\n", check=False)
    assert done.status == 1
    assert "nothing was changed" in done.text
    assert vm.run(["sha256sum", mine]).text == before
    done = vm.run(ask, stdin=f"{mine.removeprefix('/dev/')}\n".encode())
    assert f"{mine}1 is ready: vfat, LABEL=TINYKDUMP" in done.text


@pytest.mark.parametrize("kind", CHECKS)
def test_data_is_kept(vm: VM, kind: str) -> None:
    mine = device(vm, SIZE)
    vm.run(["tinykdump", "prepare", "--yes", "--filesystem", kind, mine])
    relabel = {"vfat": f"fatlabel {mine}1 PHOTOS", "exfat": f"exfatlabel {mine}1 PHOTOS",
               "ext4": f"tune2fs -L PHOTOS {mine}1"}[kind]  # fmt: skip
    vm.shell(f"mount -t {kind} {mine}1 /mnt; echo mine >/mnt/photo; umount /mnt; {relabel}")
    vm.run(["tinykdump", "prepare", "--yes", "--keep-data", mine])
    found = vm.run(["blkid", "-p", "-o", "export", f"{mine}1"]).text.splitlines()
    assert "LABEL=TINYKDUMP" in found
    assert vm.shell(f"mount -t {kind} -o ro {mine}1 /mnt; cat /mnt/photo; umount /mnt").text == (
        "mine\n"
    )


def test_no_other_disk_has_changed(vm: VM, machine: Machine) -> None:
    """Byte for byte, after all of the above."""
    vm.run(["sync"])
    vm.quit()
    other = machine.stick("other").image
    assert filecmp.cmp(other, other.with_name("before.img"), shallow=False)
    decoy = machine.disks[1].overlay(vm.workdir)
    subprocess.run(["qemu-img", "compare", decoy, machine.disks[1].image], check=True)
