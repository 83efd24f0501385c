# SPDX-License-Identifier: GPL-2.0-or-later
"""The Ansible role: on Debian in a guest, with our package, systemd and grub."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.playbook import CONTRIB, PROGRAMS, environment, play
from tests.deb import archive
from tests.deb.test_install import prepare
from tests.vm import service
from tests.vmtest.machine import Disk, Machine
from tests.vmtest.rootfs import SYSTEMD, Root
from tests.vmtest.vm import VM, running

# What Ansible needs, and what a Debian that boots from a disk has.
NEEDED = ("python3-apt", "grub2-common")


def test_the_linter_has_no_complaints() -> None:
    command = [str(PROGRAMS / "ansible-lint"), "--offline", "--strict", "-q",
               "--profile", "production", str(CONTRIB)]  # fmt: skip
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_variable_is_described() -> None:
    """argument_specs has each default of defaults/main.yml, and nothing else."""
    yaml = pytest.importorskip("yaml")
    role = CONTRIB / "roles/tinykdump"
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]
    options = specs["main"]["options"]
    assert {name: option["default"] for name, option in options.items()} == defaults


@pytest.mark.checkout
@pytest.mark.parametrize(("text", "is_valid"), [("keep = 3", True), ("kepe = 3", False)])
def test_an_invalid_configuration_is_refused(tmp_path: Path, text: str, is_valid: bool) -> None:
    """Also if Ansible does not log in as root: the new file is in a directory of that user."""
    yaml = pytest.importorskip("yaml")
    tasks = yaml.safe_load((CONTRIB / "roles/tinykdump/tasks/configure.yml").read_text())
    (validate,) = (task["ansible.builtin.template"]["validate"] for task in tasks
                   if "ansible.builtin.template" in task)  # fmt: skip
    program = tmp_path / "bin/tinykdump"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tinykdump "$@"\n')
    program.chmod(0o755)
    file = tmp_path / "home/ansible.conf"
    file.parent.mkdir()
    file.write_text(f"[dump]\n{text}\n")
    os.chown(file.parent, 65534, 65534)
    environment = {**os.environ, "PATH": f"{program.parent}:/usr/bin:/bin"}
    done = subprocess.run(shlex.split(validate % file), env=environment, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert (done.returncode == 0) is is_valid, done.stderr
    assert not Path("/run/tinykdump.conf").exists()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive.binary(archive.work_tree(tmp_path_factory.mktemp("debs")))


@pytest.fixture(scope="module")
def variables(package: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Those of a lab: a package, and the public key of all machines."""
    keys, file = service.cached_key_pair(), tmp_path_factory.mktemp("key") / "crash.asc"
    command = ["gpg", "--homedir", str(keys.home), "--no-autostart", "--armor", "--export"]
    file.write_bytes(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {"tinykdump_package": str(package), "tinykdump_public_key": str(file),
            "tinykdump_label": "LABSTICK", "tinykdump_settings": {"dump": {"keep": 3}}}  # fmt: skip


@pytest.fixture(scope="module")
def disks(root: Root, tmp_path_factory: pytest.TempPathFactory) -> tuple[Disk, ...]:
    image = archive.disk(archive.packages(root, *NEEDED), tmp_path_factory.mktemp("disk") / "d.img")
    return (Disk("root", root.image), Disk("packages", image))


def booted(machine: Machine, workdir: Path, *packages: str) -> Iterator[VM]:
    with running(machine, workdir) as vm:
        vm.wait_for_agent()
        prepare(vm)
        vm.run(["apt-get", "--quiet=2", "--yes", "--no-install-recommends", "install", *packages],
               env={"DEBIAN_FRONTEND": "noninteractive"})  # fmt: skip
        yield vm


@pytest.fixture
def vm(root: Root, disks: tuple[Disk, ...], tmp_path: Path) -> Iterator[VM]:
    machine = root.machine("crashkernel=192M", init=SYSTEMD, memory_mib=1024, disks=disks)
    yield from booted(machine, tmp_path / "vm", "python3-apt")


@pytest.fixture
def vm_without_memory(root: Root, disks: tuple[Disk, ...], tmp_path: Path) -> Iterator[VM]:
    """A machine whose kernel reserved no memory, and that has grub."""
    machine = root.machine(init=SYSTEMD, memory_mib=1024, disks=disks)
    yield from booted(machine, tmp_path / "vm", *NEEDED)


def status(vm: VM) -> dict[str, Any]:
    return dict(json.loads(vm.run(["tinykdump", "status", "--json"], check=False).text))


@pytest.mark.long
def test_the_role_arms_a_machine_and_then_changes_nothing(
    vm: VM, root: Root, variables: dict[str, Any]
) -> None:
    planned = play(vm, variables, "--check")
    assert planned.status == 0, planned.text
    assert planned.changed == (
        "Copy it", "Make the directory of drop-ins", "Write the drop-in", "Copy the package",
    )  # fmt: skip
    assert vm.run(["ls", "/etc/tinykdump.asc", "/etc/default/tinykdump.d"], check=False).text == ""

    first = play(vm, variables)
    assert first.status == 0, first.text
    assert f"armed with {root.kver}" in first.text
    found = status(vm)
    assert (found["armed"], found["target"], found["problems"]) == (True, "LABEL=LABSTICK", [])
    assert found["key"] == service.cached_key_pair().fingerprint
    assert vm.run(["ls", "/var/lib/tinykdump/keys"], check=False).text == ""
    assert "keep = 3\n" in vm.get("/etc/default/tinykdump.d/ansible.conf").decode()
    assert vm.run(["systemctl", "is-enabled", "tinykdump"]).text == "enabled\n"

    for options in ((), ("--check",)):
        again = play(vm, variables, *options)
        assert (again.status, again.count, again.changed) == (0, 0, ()), again.text

    other = play(vm, variables | {"tinykdump_label": "OTHER"})
    assert other.changed == ("Write the drop-in", "Arm the machine now"), other.text
    assert (status(vm)["armed"], status(vm)["target"]) == (True, "LABEL=OTHER")

    wrong = play(vm, variables | {"tinykdump_settings": {"dump": {"kep": 3}}})
    assert wrong.status != 0
    assert "[dump] kep: no such key" in wrong.text
    assert status(vm)["target"] == "LABEL=OTHER"

    vm.run(["tinykdump", "unload"])
    check = play(vm, {}, tasks_from="check")
    assert check.status != 0
    assert "no crash kernel is loaded (run tinykdump -l" in check.text


@pytest.mark.long
def test_the_role_reserves_memory_where_there_is_none(
    vm_without_memory: VM, root: Root, variables: dict[str, Any]
) -> None:
    vm = vm_without_memory
    vm.shell(f"mkdir -p /boot/grub; test -e /boot/vmlinuz-{root.kver}")
    for changes in (True, False):
        played = play(vm, variables)
        assert played.status != 0
        assert "not in effect (reboot)" in played.text, played.text
        assert "no memory is reserved" in played.text
        assert ("Add it to grub's configuration" in played.changed) is changes
        assert bool(played.count) is changes
        entries = vm.get("/boot/grub/grub.cfg").decode()
        (line, *_) = [line for line in entries.splitlines() if f"vmlinuz-{root.kver} " in line]
        assert line.split().count("crashkernel=192M") == 1
        assert vm.run(["tinykdump", "status"], check=False).status == 1
