# SPDX-License-Identifier: GPL-2.0-or-later
"""Saves a machine to a directory, from which it can be resumed any number of times.

    with running(machine, workdir) as vm:
        ...                                     # arm it
        save(vm, directory)                     # ends this machine
    with resumed(machine, directory, other_workdir) as vm:
        ...                                     # its own disks, sticks and firmware variables

armed() keeps the directory in the cache: it does not contain its own path, and resumed() only
reads it.
"""

import json
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.vmtest import cache
from tests.vmtest.errors import MachineLost
from tests.vmtest.machine import Disk, Machine, Stick, argv
from tests.vmtest.vm import VM, running

SAVE_SECONDS = 600.0
RESUME_SECONDS = 300.0


def save(vm: VM, directory: Path) -> None:
    """Stop the machine, write its state to the directory, and end it."""
    for stick in vm.machine.sticks:
        if stick.plugged and stick.driver == "usb-uas":
            raise ValueError(f"QEMU cannot save a plugged usb-uas device (unplug {stick.id} first)")
    directory.mkdir(parents=True, exist_ok=True)
    vm.wait_for_agent()
    vm.qmp("stop")
    # The default bandwidth is for networks.
    vm.qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
    vm.qmp("migrate", uri=f"exec:cat >{shlex.quote(str(_memory(directory)))}")
    _wait_for_migration(vm, {"completed"}, SAVE_SECONDS)
    vm.quit()
    _keep_files(vm.machine, vm.workdir, directory)


def armed(machine: Machine, arm: Callable[[VM], None], *inputs: object) -> Path:
    """A snapshot of the machine after arm(vm), made if it is not in the cache.

    `inputs` is everything that determines what arm() does: its parameters, its source, the files
    that it puts into the guest, and the content of the sticks.
    """
    # The key has the names of images, not their content: images in the cache have a hash in their
    # name, and sticks are new each time.
    sticks = tuple(replace(each, image=Path(each.id)) for each in machine.sticks)
    sizes = [each.image.stat().st_size for each in machine.sticks]
    command = argv(replace(machine, sticks=sticks), Path("workdir"), qmp_fd=0, hand_fd=0)
    images = [str(disk.image) for disk in machine.disks]
    unplugged = [str(each) for each in sticks]
    qemu = subprocess.run([command[0], "--version"], check=True, capture_output=True).stdout

    def build(directory: Path) -> None:
        with tempfile.TemporaryDirectory(dir=directory) as workdir:
            with running(machine, Path(workdir)) as vm:
                vm.wait_for_agent()
                arm(vm)
                save(vm, directory)
            shutil.copy(Path(workdir) / "console.log", directory)

    key = cache.key(command, images, sizes, unplugged, qemu, inputs)
    return cache.entry("snapshot", key, build)


def _keep_files(machine: Machine, workdir: Path, directory: Path) -> None:
    for disk in machine.disks:
        shutil.move(disk.overlay(workdir), disk.overlay(directory))
    for stick in machine.sticks:
        copy(stick.image, _stick_image(directory, stick))
    if machine.firmware:
        shutil.move(machine.firmware.copy(workdir), machine.firmware.copy(directory))
    plugged = [stick.id for stick in machine.sticks if stick.plugged]
    state = {"plugged": plugged}
    (directory / "state.json").write_text(json.dumps(state), encoding="utf-8")


@contextmanager
def resumed(machine: Machine, directory: Path, workdir: Path) -> Iterator[VM]:
    """Resume the snapshot; `machine` is the one that was started for it.

    Copies all sticks of the snapshot to the work directory, to vm.machine.stick(id).image.
    A stick that is not in the snapshot keeps its image.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    incoming = ("-incoming", f"exec:cat {shlex.quote(str(_memory(directory)))}")
    awake = as_saved(machine, directory, workdir)
    started = replace(awake, arguments=(*awake.arguments, *incoming))
    for stick in awake.sticks:
        saved = _stick_image(directory, stick)
        if saved.exists():
            copy(saved, stick.image)
    with running(started, workdir) as vm:
        vm.machine = awake
        _go_on(vm)
        vm.wait_for_agent(RESUME_SECONDS)
        yield vm


def as_saved(machine: Machine, directory: Path, workdir: Path) -> Machine:
    """The machine with the files of the snapshot, and with the sticks that were plugged in."""
    plugged = json.loads((directory / "state.json").read_text(encoding="utf-8"))["plugged"]
    disks = tuple(Disk(disk.id, disk.overlay(directory), "qcow2") for disk in machine.disks)
    sticks = tuple(
        replace(stick, image=_stick_image(workdir, stick), plugged=stick.id in plugged)
        if _stick_image(directory, stick).exists()
        else stick
        for stick in machine.sticks
    )
    firmware = machine.firmware
    if firmware:
        firmware = replace(firmware, variables=firmware.copy(directory))
    return replace(machine, disks=disks, sticks=sticks, firmware=firmware)


def _wait_for_migration(vm: VM, wanted: set[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (state := vm.qmp("query-migrate")).get("status") not in wanted:
        if state.get("status") in {"failed", "cancelled"} or time.monotonic() > deadline:
            raise MachineLost(f"the machine cannot be saved: {state}", vm.console)
        time.sleep(0.05)


def _go_on(vm: VM) -> None:
    deadline = time.monotonic() + RESUME_SECONDS
    while vm.qmp("query-status")["status"] == "inmigrate":
        if time.monotonic() > deadline:
            raise MachineLost("timeout while reading the snapshot", vm.console)
        time.sleep(0.05)
    # It was stopped when it was saved.
    vm.qmp("cont")


def _memory(directory: Path) -> Path:
    return directory / "memory"


def _stick_image(directory: Path, stick: Stick) -> Path:
    return directory / f"stick-{stick.id}.{stick.format}"


def copy(source: Path, target: Path) -> None:
    """Copy an image: keeps holes, and shares blocks if the file system can."""
    command = ["cp", "--sparse=always", "--reflink=auto", str(source), str(target)]
    subprocess.run(command, check=True)
