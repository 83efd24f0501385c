# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM library itself, with a real kernel: if these tests fail, fix them before others."""

import inspect
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vmtest import accel, snapshot, stick
from tests.vmtest.errors import GuestFailed, MachineLost
from tests.vmtest.machine import EHCI, OVMF, XHCI, Machine, Stick
from tests.vmtest.rootfs import SYSTEMD, Root
from tests.vmtest.vm import VM, running


def machine_with(root: Root, *sticks: Stick) -> Machine:
    return root.machine("crashkernel=192M", sticks=sticks, controllers=(XHCI, EHCI))


def drives(vm: VM) -> list[str]:
    return vm.shell("ls /sys/block | grep ^sd || true").text.split()


def wait_for_drive(vm: VM, *, there: bool) -> None:
    wanted = "" if there else "!"
    vm.shell(f"until {wanted} ls /sys/block | grep -q ^sd; do sleep 0.2; done", timeout=300)


@pytest.fixture(scope="module")
def machine(root: Root, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    directory = tmp_path_factory.mktemp("sticks")
    fat = stick.make(directory / "fat.img", size_mib=64)
    ext4 = stick.make(directory / "ext4.img", filesystem="ext4", size_mib=64, partitioned=True)
    return machine_with(
        root,
        Stick("fat", fat.path, plugged=False),
        Stick("ext4", ext4.path, bus="ehci", plugged=False),
        Stick("fast", directory / "fat.img", driver="usb-uas", plugged=False),
    )


def arm(vm: VM) -> None:
    """Load modules, put a mark on the disk and one in memory, and plug in the FAT stick."""
    vm.shell("for m in xhci_pci ehci_pci usb_storage uas sd_mod vfat; do modprobe $m; done")
    vm.shell("echo disk >/root/mark; echo memory >/tmp/mark; sync")
    vm.plug("fat")
    wait_for_drive(vm, there=True)


@pytest.fixture(scope="module")
def saved(machine: Machine) -> Path:
    return snapshot.armed(machine, arm, inspect.getsource(arm))


@pytest.fixture(scope="module")
def shared(machine: Machine, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VM]:
    """For tests that do not change the machine."""
    with snapshot.resumed(machine, saved, tmp_path_factory.mktemp("shared")) as vm:
        yield vm


def test_crash_memory_is_reserved(shared: VM) -> None:
    assert int(shared.run(["cat", "/sys/kernel/kexec_crash_size"]).text) == 192 << 20


def test_result_has_status_and_both_outputs(shared: VM) -> None:
    result = shared.shell("echo out; echo err >&2; exit 3", check=False)
    assert (result.status, result.stdout, result.stderr) == (3, b"out\n", b"err\n")


def test_environment_directory_and_input_reach_the_command(shared: VM) -> None:
    result = shared.shell("pwd; echo $MARK; cat", env={"MARK": "x y"}, cwd="/usr", stdin=b"in\n")
    assert result.text == "/usr\nx y\nin\n"


def test_failing_command_is_the_guests_failure(shared: VM) -> None:
    with pytest.raises(GuestFailed, match="No such file") as caught:
        shared.run(["ls", "/nowhere"])
    assert caught.value.result.status == 2


def test_missing_command_is_the_guests_failure(shared: VM) -> None:
    with pytest.raises(GuestFailed) as caught:
        shared.run(["no-such-command"])
    assert caught.value.result.status == 127


def test_command_that_takes_too_long_is_killed(shared: VM) -> None:
    with pytest.raises(GuestFailed, match="killed") as caught:
        shared.shell("sleep 60 & sleep 60", timeout=1)
    assert caught.value.result.timed_out
    assert "sleep" not in shared.shell("cat /proc/[0-9]*/comm").text


def test_daemon_does_not_delay_its_command(shared: VM) -> None:
    assert shared.shell("sleep 30 & echo started").seconds < 20


def test_binary_files_survive_both_ways(shared: VM) -> None:
    content = os.urandom(1_500_000)
    shared.put(content, "/var/new/file", mode=0o750)
    assert shared.get("/var/new/file") == content
    assert shared.run(["stat", "-c", "%a", "/var/new/file"]).text == "750\n"
    with pytest.raises(GuestFailed, match="FileNotFoundError"):
        shared.get("/nowhere")


def test_clock_of_a_resumed_machine_is_right(shared: VM) -> None:
    # TCG may lag by a few seconds, but not by the age of the snapshot.
    assert abs(int(shared.run(["date", "+%s"]).text) - time.time()) < 10


def test_snapshot_keeps_disk_memory_and_devices(
    machine: Machine, saved: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        started = time.monotonic()
        with snapshot.resumed(machine, saved, tmp_path / str(number)) as vm:
            print(f"resumed in {time.monotonic() - started:.1f} s")
            assert vm.shell("cat /root/mark /tmp/mark").text == "disk\nmemory\n"
            assert drives(vm) == ["sda"]
            # The second machine must not see what the first one did.
            assert vm.run(["ls", "/root"]).text == "mark\n"
            vm.shell("echo changed >/root/new; mount /dev/sda /mnt; ls /mnt; touch /mnt/new")
            vm.run(["umount", "/mnt"])
            path = vm.machine.stick("fat").image
        assert stick.files(stick.Image(path, "vfat")) == ["new"]


def test_sticks_can_be_plugged_in_and_unplugged(
    machine: Machine, saved: Path, tmp_path: Path
) -> None:
    with snapshot.resumed(machine, saved, tmp_path) as vm:
        vm.unplug("fat")
        for stick_id, device, filesystem in (
            ("fast", "/dev/sd?", "vfat"),
            ("ext4", "/dev/sd?1", "ext4"),
            ("fat", "/dev/sd?", "vfat"),
        ):
            wait_for_drive(vm, there=False)
            vm.plug(stick_id)
            wait_for_drive(vm, there=True)
            # The partition and its device node appear shortly after the drive.
            vm.shell(f"until mount -t {filesystem} {device} /mnt; do sleep 0.5; done", timeout=300)
            vm.shell(f"echo {stick_id} >/mnt/name; umount /mnt")
            vm.unplug(stick_id)
        images = {each.id: each.image for each in vm.machine.sticks}
    for stick_id, image in (
        ("fast", stick.Image(images["fast"], "vfat")),
        ("ext4", stick.Image(images["ext4"], "ext4", stick.PARTITION_OFFSET)),
        ("fat", stick.Image(images["fat"], "vfat")),
    ):
        assert "name" in stick.files(image)
        assert stick.read(image, "name").decode().strip() == stick_id


def test_reboot_is_seen_and_survived(machine: Machine, saved: Path, tmp_path: Path) -> None:
    with snapshot.resumed(machine, saved, tmp_path) as vm:
        vm.start(["busybox", "reboot", "-f"])
        assert vm.wait_for_reboot(timeout=300)["event"] == "RESET"
        vm.wait_for_agent()
        assert not vm.shell("cat /tmp/mark", check=False).stdout
        assert vm.run(["cat", "/root/mark"]).text == "disk\n"


def test_unexpected_reboot_is_a_lost_machine(machine: Machine, saved: Path, tmp_path: Path) -> None:
    with (
        snapshot.resumed(machine, saved, tmp_path) as vm,
        pytest.raises(MachineLost, match="restarted while waiting for"),
    ):
        vm.shell("busybox reboot -f; sleep 60")


def test_killed_machine_is_lost(machine: Machine, saved: Path, tmp_path: Path) -> None:
    with snapshot.resumed(machine, saved, tmp_path) as vm:
        request = vm.start(["sleep", "60"])
        vm.kill()
        with pytest.raises(MachineLost, match="QEMU ended with status -9"):
            vm.finish(request, ["sleep", "60"])
        with pytest.raises(MachineLost):
            vm.run(["true"])


def test_hanging_machine_is_lost_in_time(
    machine: Machine, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.vmtest.vm.GRACE_SECONDS", 2)
    with snapshot.resumed(machine, saved, tmp_path) as vm:
        vm.qmp("stop")
        with pytest.raises(MachineLost, match="timeout while waiting for the end of 'true'"):
            vm.run(["true"], timeout=1)


def test_machine_that_qemu_refuses_is_lost_with_qemus_message(root: Root, tmp_path: Path) -> None:
    machine = root.machine(devices=("no-such-device",))
    with (
        pytest.raises(MachineLost, match=r"(?s)QEMU does not start.*no-such-device"),
        running(machine, tmp_path),
    ):
        pass


def test_poweroff_ends_qemu(machine: Machine, saved: Path, tmp_path: Path) -> None:
    with snapshot.resumed(machine, saved, tmp_path) as vm:
        vm.start(["busybox", "poweroff", "-f"])
        assert vm.wait_for_reboot(timeout=300)["event"] == "SHUTDOWN"


def test_boot_is_quick_enough_to_work_with(machine: Machine, tmp_path: Path) -> None:
    started = time.monotonic()
    with running(machine, tmp_path) as vm:
        vm.wait_for_agent()
        print(f"booted in {time.monotonic() - started:.1f} s")
        assert "Linux version" in vm.wait_for_console("Linux version", timeout=1)


def test_first_init_tells_qemu_that_the_kernel_runs(machine: Machine) -> None:
    assert machine.initrd
    assert accel.probe(machine.kernel, machine.initrd, accel="tcg", seconds=120)


def test_probe_fails_if_the_kernel_does_not_boot(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert not accel.probe(machine.kernel, tmp_path / "empty", accel="tcg", seconds=60)


def test_uefi_and_storage_for_pstore(root: Root, tmp_path: Path) -> None:
    machine = root.machine(firmware=OVMF, erst_kib=64)
    with running(machine, tmp_path) as vm:
        vm.run(["test", "-d", "/sys/firmware/efi"])
        vm.shell("dmesg | grep 'ERST: Error Record Serialization Table (ERST) support is init'")


@pytest.mark.timeout(3600)
def test_systemd_can_be_the_first_process(root: Root, tmp_path: Path) -> None:
    with running(root.machine(init=SYSTEMD), tmp_path) as vm:
        vm.wait_for_agent(timeout=2000)
        assert vm.run(["cat", "/proc/1/comm"]).text == "systemd\n"
        vm.run(["systemctl", "is-active", "tinykdump-vm-agent.service"])
