# SPDX-License-Identifier: GPL-2.0-or-later
"""A running machine: QEMU's process, its monitor and its console.

Every wait has a time limit. QEMU ends with the `with` block, with this process, or after
Machine.lifetime seconds of CPU time. vm.py, which talks to the agent, and orders.py, which talks
to the small init, are built on this. A guest that only writes to its console needs neither.
"""

import asyncio
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from tests.vmtest.errors import MachineLost
from tests.vmtest.machine import Machine, Stick, argv, stick_blockdev, stick_devices

QMP_SECONDS = 120.0
CONSOLE_LINES = 40

# No guest can boot and reset again within this time.
ECHO_SECONDS = 2.0

# After these events, earlier state of the guest is lost.
RESTARTS = ("RESET", "SHUTDOWN")

# The id of the running test if it lacks the mark vm, otherwise empty (see plugin.py).
unmarked = ""


class Qemu:
    def __init__(
        self,
        machine: Machine,
        workdir: Path,
        process: subprocess.Popen[bytes],
        qmp: QEMUMonitorProtocol,
        connection: socket.socket,
    ) -> None:
        # The present state: plug() and unplug() change it.
        self.machine = machine
        self.workdir = workdir
        # QMP events that nobody has waited for yet, oldest first.
        self.events: list[dict[str, Any]] = []
        # The socket to the agent or the init, see Machine.hand.
        self.connection = connection
        self._process = process
        self._qmp = qmp
        self.started = time.monotonic()
        self._last_reset = 0.0

    def qmp(self, command: str, **arguments: object) -> Any:
        try:
            return self._qmp.cmd(command, **arguments)
        except ExecuteError:
            # QEMU refused the command: a mistake of the caller, not a lost machine.
            raise
        except (QMPError, OSError, TimeoutError) as error:
            raise self.lost(f"no answer to QMP {command}") from error

    def plug(self, stick: str | Stick) -> None:
        """Plug in a stick of the machine, by its id, or a new one."""
        chosen = self.machine.stick(stick) if isinstance(stick, str) else stick
        machine = self.machine.with_stick(replace(chosen, plugged=True))
        self.qmp("blockdev-add", **stick_blockdev(chosen))
        for device in stick_devices(machine, chosen):
            self.qmp("device_add", **device)
        if chosen.driver == "usb-uas":
            # QEMU leaves the device detached until its disk is added.
            path = f"/machine/peripheral/{chosen.id}"
            self.qmp("qom-set", path=path, property="attached", value=True)
        self.machine = machine

    def unplug(self, stick_id: str) -> None:
        """Unplug a stick and close its image, so that the test can read it."""
        stick = self.machine.stick(stick_id)
        self.qmp("device_del", id=stick_id)
        node = stick_blockdev(stick)["node-name"]
        deadline = time.monotonic() + QMP_SECONDS
        while True:
            try:
                self.qmp("blockdev-del", **{"node-name": node})
                break
            except ExecuteError:
                # QEMU has not removed the device yet.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.machine = self.machine.with_stick(replace(stick, plugged=False))

    def reset(self) -> None:
        self.qmp("system_reset")
        self.wait_for_event("RESET", timeout=QMP_SECONDS)

    def nmi(self) -> None:
        self.qmp("inject-nmi")

    def wait_for_reboot(self, timeout: float) -> dict[str, Any]:
        """Wait until the guest reboots or powers off."""
        return self.wait_for_event(*RESTARTS, timeout=timeout)

    def wait_for_event(self, *names: str, timeout: float) -> dict[str, Any]:
        """Wait for an event with one of these names; drops it and all earlier ones."""
        deadline = time.monotonic() + timeout
        while True:
            for index, event in enumerate(self.pull_events(wait=0.25)):
                if event["event"] in names:
                    if any(restarts(each) for each in self.events[: index + 1]):
                        self._forget()
                    del self.events[: index + 1]
                    return event
            wanted = " or ".join(names)
            if self._process.poll() is not None and not self.pull_events():
                raise self.lost(f"while waiting for {wanted}")
            if time.monotonic() > deadline:
                raise self.lost(f"timeout while waiting for {wanted}")

    def _forget(self) -> None:
        """Drop what is known of the guest, because it restarted."""

    def pull_events(self, wait: float = 0.0) -> list[dict[str, Any]]:
        # If QEMU has closed the connection, earlier events can still be read.
        with suppress(asyncio.TimeoutError, QMPError, OSError):
            event = self._qmp.pull_event(wait=wait)
            while event:
                self._note(dict(event))
                event = self._qmp.pull_event()
        return self.events

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "RESET":
            # A rebooting kernel tries several methods, so one reboot may cause several resets.
            echo = _seconds(event) - self._last_reset < ECHO_SECONDS
            self._last_reset = _seconds(event)
            if echo:
                return
        self.events.append(event)

    def quit(self) -> None:
        """End QEMU cleanly, so that it writes its images."""
        with suppress(QMPError, OSError, asyncio.TimeoutError):
            self._qmp.cmd("quit")
        try:
            self._process.wait(QMP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def wait_for_end(self, timeout: float) -> int:
        """Wait until QEMU ends by itself; returns its exit status."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.lost("timeout while waiting for the end of QEMU") from None

    def kill(self) -> None:
        """End QEMU as a power cut would."""
        self._process.kill()
        self._process.wait()

    # The console shows progress and explains failures. Take results from it only if the guest
    # has no other channel.

    @property
    def console(self) -> str:
        path = self.workdir / "console.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def wait_for_console(self, pattern: str, timeout: float) -> str:
        """Wait for a line of the console that matches; searches from the start of the console."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self.console.splitlines():
                if re.search(pattern, line):
                    return line
            if self._process.poll() is not None:
                raise self.lost(f"while waiting for {pattern!r} on the console")
            if time.monotonic() > deadline:
                raise self.lost(f"timeout while waiting for {pattern!r} on the console")
            time.sleep(0.1)

    def lost(self, reason: str) -> MachineLost:
        # QEMU closes its sockets shortly before its process ends.
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(0.5)
            said = (self.workdir / "qemu.log").read_text(encoding="utf-8", errors="replace")
            reason = f"{reason}: QEMU ended with status {status} {said.strip()}".rstrip()
        return MachineLost(reason, "\n".join(self.console.splitlines()[-CONSOLE_LINES:]))


def _seconds(event: Mapping[str, Any]) -> float:
    stamp = event["timestamp"]
    return float(stamp["seconds"]) + float(stamp["microseconds"]) / 1e6


def restarts(event: Mapping[str, Any]) -> bool:
    return event["event"] in RESTARTS


Running = TypeVar("Running", bound=Qemu)


@contextmanager
def started(kind: type[Running], machine: Machine, workdir: Path) -> Iterator[Running]:
    """Start the machine, with the disks in the work directory if there are any."""
    prepare(machine, workdir)
    with ExitStack() as stack:
        qmp_socket, qmp_end = socket.socketpair()
        connection, hand_end = socket.socketpair()
        stack.callback(connection.close)
        stack.callback(qmp_socket.close)
        with qmp_end, hand_end:
            command = argv(machine, workdir, qmp_fd=qmp_end.fileno(), hand_fd=hand_end.fileno())
            fds = (qmp_end.fileno(), hand_end.fileno())
            process = spawn(command, workdir, fds, machine.lifetime)
        stack.callback(_end, process)
        qmp = QEMUMonitorProtocol(qmp_socket)
        qmp.settimeout(QMP_SECONDS)
        vm = kind(machine, workdir, process, qmp, connection)
        try:
            qmp.connect()
        except QMPError as error:
            raise vm.lost("QEMU does not start") from error
        stack.callback(_close, qmp)
        stack.callback(vm.quit)
        yield vm


def prepare(machine: Machine, workdir: Path) -> None:
    """Make the files that the machine writes to, unless they exist."""
    workdir.mkdir(parents=True, exist_ok=True)
    for disk in machine.disks:
        if not disk.overlay(workdir).exists():
            # fmt: off
            command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", disk.format,
                       "-b", str(disk.image.absolute()), str(disk.overlay(workdir))]
            # fmt: on
            subprocess.run(command, check=True)
    if machine.firmware and not machine.firmware.variables.exists():
        raise FileNotFoundError(f"{machine.firmware.variables} is missing (run: make deps)")
    if machine.firmware and not machine.firmware.copy(workdir).exists():
        shutil.copyfile(machine.firmware.variables, machine.firmware.copy(workdir))


def spawn(
    command: Sequence[str], workdir: Path, fds: Sequence[int], lifetime: int
) -> subprocess.Popen[bytes]:
    if unmarked:
        raise RuntimeError(f"{unmarked} boots a machine (name its fixture in BOOTS of plugin.py)")
    # The machine ends when this process does, even if that is killed.
    guard = ["prlimit", f"--cpu={lifetime}", "setpriv", "--pdeathsig", "KILL", "--"]
    with (workdir / "qemu.log").open("wb") as log:
        return subprocess.Popen(
            [*guard, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=fds
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _close(qmp: QEMUMonitorProtocol) -> None:
    # QEMU may have ended already.
    with suppress(QMPError, OSError, asyncio.TimeoutError, EOFError):
        qmp.close()
