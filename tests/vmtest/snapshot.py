# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine put to sleep in a directory, from which any number of machines can go on.

    with running(machine, workdir) as vm:
        ...                                     # arm it
        save(vm, directory)                     # ends this machine
    with resumed(machine, directory, other_workdir) as vm:
        ...                                     # its own disks, sticks and firmware variables

The directory can be one of the cache, which armed() sees to: it has no path of its own inside, and
resuming only reads it.
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
    """Stop the machine, write all of it to the directory, and end it."""
    for stick in vm.machine.sticks:
        if stick.plugged and stick.driver == "usb-uas":
            raise ValueError(f"QEMU cannot save a plugged usb-uas device (unplug {stick.id} first)")
    directory.mkdir(parents=True, exist_ok=True)
    vm.wait_for_agent()
    vm.qmp("stop")
    # The default is meant for networks.
    vm.qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
    vm.qmp("migrate", uri=f"exec:cat >{shlex.quote(str(_memory(directory)))}")
    _wait_for_migration(vm, {"completed"}, SAVE_SECONDS)
    vm.quit()
    _keep_files(vm.machine, vm.workdir, directory)


def armed(machine: Machine, arm: Callable[[VM], None], *inputs: object) -> Path:
    """A snapshot of the machine after arm(vm), from the cache or new.

    `inputs` is all that decides what arm() does: its own parameters, the files that it puts into
    the guest, the source of the function. What is on the sticks belongs there, too.
    """
    # Images are named, not read: those of the cache have their hash in their name, and those of
    # sticks are new ones each time.
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
    """Go on from the snapshot; `machine` is the one that was started then.

    Sticks are copied to the work directory, also those that are not plugged in:
    vm.machine.stick(id).image says where. One that the snapshot does not have stays where it is.
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
    """The machine with the files of the snapshot, and with what was plugged in when it was made."""
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
            raise MachineLost("the snapshot is not read in time", vm.console)
        time.sleep(0.05)
    # It was stopped when it was saved, and so it is now.
    vm.qmp("cont")


def _memory(directory: Path) -> Path:
    return directory / "memory"


def _stick_image(directory: Path, stick: Stick) -> Path:
    return directory / f"stick-{stick.id}.{stick.format}"


def copy(source: Path, target: Path) -> None:
    """Copy an image, holes and all, and without using space where the file system can share it."""
    command = ["cp", "--sparse=always", "--reflink=auto", str(source), str(target)]
    subprocess.run(command, check=True)
