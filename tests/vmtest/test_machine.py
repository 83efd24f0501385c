# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line for a machine."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vmtest.machine import (
    AARCH64,
    EHCI,
    XHCI,
    Disk,
    Firmware,
    Machine,
    Stick,
    argv,
    stick_blockdev,
    stick_devices,
)

STICK = Stick("key", Path("/images/key.img"))


def command(machine: Machine) -> list[str]:
    return argv(machine, Path("/work,dir"), qmp_fd=10, hand_fd=11)


def values(machine: Machine, option: str) -> list[str]:
    arguments = command(machine)
    return [arguments[at + 1] for at, each in enumerate(arguments) if each == option]


def devices(machine: Machine) -> dict[str, dict[str, object]]:
    """The devices given as JSON, by id."""
    parsed = [json.loads(each) for each in values(machine, "-device") if each.startswith("{")]
    return {device["id"]: device for device in parsed if "id" in device}


def test_kernel_and_command_line() -> None:
    machine = Machine(Path("/vmlinuz"), Path("/initrd"), ("console=ttyS0",)).with_append("quiet")
    assert values(machine, "-kernel") == ["/vmlinuz"]
    assert values(machine, "-initrd") == ["/initrd"]
    assert values(machine, "-append") == ["console=ttyS0 quiet"]


def test_tcg_is_the_default() -> None:
    assert values(Machine(Path("/vmlinuz")), "-accel") == ["tcg,thread=multi"]
    kvm = Machine(Path("/vmlinuz"), accel="kvm")
    assert (values(kvm, "-accel"), values(kvm, "-cpu")) == (["kvm"], ["host"])


def test_a_clock_that_counts_instructions() -> None:
    machine = Machine(Path("/vmlinuz"), counts=True)
    assert values(machine, "-accel") == ["tcg,thread=single"]
    assert values(machine, "-icount") == ["shift=1,sleep=off"]
    assert values(Machine(Path("/vmlinuz")), "-icount") == []


def test_default_processor_has_everything_but_slow_copies() -> None:
    assert values(Machine(Path("/vmlinuz")), "-cpu") == ["max,erms=off"]
    assert values(Machine(Path("/vmlinuz"), cpu="max,la57=off"), "-cpu") == ["max,la57=off"]


def test_hand_in_the_guest_is_the_agent_or_the_small_init() -> None:
    agent = Machine(Path("/vmlinuz"))
    assert values(agent, "-serial") == ["chardev:console"]
    assert any("chardev=hand" in each for each in values(agent, "-device"))
    small = Machine(Path("/vmlinuz"), hand="init")
    assert values(small, "-serial") == ["chardev:console", "chardev:hand"]
    assert not any("chardev=hand" in each for each in values(small, "-device"))


def test_disk_is_an_overlay_in_the_work_directory() -> None:
    machine = Machine(Path("/vmlinuz"), disks=(Disk("root", Path("/cache/root.img")),))
    (node,) = [json.loads(each) for each in values(machine, "-blockdev")]
    assert node["file"]["filename"] == "/work,dir/root.qcow2"
    assert devices(machine)["root"]["drive"] == node["node-name"]


def test_comma_in_a_path_does_not_end_an_option() -> None:
    assert "file,id=console,path=/work,,dir/console.log" in command(Machine(Path("/vmlinuz")))


def test_stick_that_is_not_plugged_in_has_no_device() -> None:
    unplugged = Stick("key", Path("/images/key.img"), plugged=False)
    assert "key" not in devices(Machine(Path("/vmlinuz"), sticks=(unplugged,)))
    assert "key" in devices(Machine(Path("/vmlinuz"), sticks=(STICK,)))


def test_stick_keeps_its_port_whatever_else_is_plugged_in() -> None:
    other = Stick("other", Path("/images/other.img"), bus="ehci", plugged=False)
    second = Stick("second", Path("/images/second.img"))
    machine = Machine(Path("/vmlinuz"), controllers=(XHCI, EHCI), sticks=(STICK, other, second))
    assert devices(machine)["second"]["port"] == "2"
    (device,) = stick_devices(machine, other)
    assert (device["bus"], device["port"]) == ("ehci.0", "1")


def test_plugging_in_later_gives_the_same_device() -> None:
    machine = Machine(Path("/vmlinuz"), sticks=(STICK,))
    assert [devices(machine)["key"]] == stick_devices(machine, STICK)


def test_uas_has_its_disk_on_a_device_of_its_own() -> None:
    fast = Stick("fast", Path("/images/fast.img"), driver="usb-uas")
    bridge, disk = stick_devices(Machine(Path("/vmlinuz"), sticks=(fast,)), fast)
    assert (bridge["driver"], "drive" in bridge) == ("usb-uas", False)
    assert (disk["bus"], disk["drive"]) == ("fast.0", "fast-image")


def test_firmware_variables_are_a_copy() -> None:
    firmware = Firmware(Path("/ovmf/code.fd"), Path("/ovmf/vars.fd"))
    drives = values(Machine(Path("/vmlinuz"), firmware=firmware), "-drive")
    assert "readonly=on,file=/ovmf/code.fd" in drives[0]
    assert "file=/work,,dir/" in drives[1]


def test_only_the_firmware_writes_to_the_variables_of_secure_boot() -> None:
    usual = Firmware(Path("/ovmf/code.fd"), Path("/ovmf/vars.fd"))
    plain = Machine(Path("/vmlinuz"), firmware=usual)
    assert (values(plain, "-machine"), values(plain, "-global")) == (["q35"], [])
    secure = Machine(Path("/vmlinuz"), firmware=replace(usual, secure=True))
    assert values(secure, "-machine") == ["q35,smm=on"]
    assert values(secure, "-global") == ["driver=cfi.pflash01,property=secure,value=on"]


def test_reboot_can_end_the_machine() -> None:
    machine = Machine(Path("/vmlinuz"), reboots=False)
    assert values(machine, "-action") == ["panic=none,reboot=shutdown"]


def test_same_id_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="used twice: key"):
        Machine(Path("/vmlinuz"), sticks=(STICK, STICK))


def test_stick_on_an_unknown_controller_is_an_error() -> None:
    with pytest.raises(ValueError, match="'ehci'"):
        Machine(Path("/vmlinuz"), sticks=(Stick("key", Path("/k"), bus="ehci"),))


def test_error_for_an_unknown_stick_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no stick 'nix' \(it has: key\)"):
        Machine(Path("/vmlinuz"), sticks=(STICK,)).stick("nix")


def test_changed_stick_replaces_the_one_of_its_id() -> None:
    machine = Machine(Path("/vmlinuz"), sticks=(STICK,))
    changed = Stick("key", Path("/elsewhere"))
    assert machine.with_stick(changed).sticks == (changed,)
    assert machine.with_stick(Stick("new", Path("/new"))).sticks[0] is STICK


def test_a_stick_behind_a_filter_and_a_hub() -> None:
    """QEMU reads the image through the filter, and finds the port of the hub by its path."""
    rule = {"event": "none", "sector": 7}
    odd = replace(STICK, port="5.2", filter={"driver": "blkdebug", "inject-error": [rule]},
                  properties={"logical_block_size": 4096})  # fmt: skip
    node = stick_blockdev(odd)
    assert node["file"] == {
        "driver": "blkdebug", "inject-error": [rule],
        "image": {"driver": "file", "filename": "/images/key.img"},
    }  # fmt: skip
    (device,) = stick_devices(Machine(Path("/vmlinuz"), sticks=(odd,)), odd)
    assert (device["port"], device["logical_block_size"]) == ("5.2", 4096)


def test_a_machine_of_another_architecture() -> None:
    """Its QEMU, board and processor; what a test chooses itself stays."""
    plain = Machine(Path("/k"), platform=AARCH64)
    assert command(plain)[0] == "qemu-system-aarch64"
    assert (values(plain, "-machine"), values(plain, "-cpu")) == (["virt"], ["cortex-a72"])
    chosen = replace(plain, model="sbsa-ref", cpu="max")
    assert (values(chosen, "-machine"), values(chosen, "-cpu")) == (["sbsa-ref"], ["max"])
