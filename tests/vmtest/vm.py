# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine that runs: `with running(machine, workdir) as vm: vm.run(["uname", "-r"])`.

Every wait has a limit, and QEMU ends with the block, with this process, or when it has used
LIFETIME seconds of processor time. A VM belongs to the thread that made it.
"""

import asyncio
import base64
import logging
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from tests.vmtest.channel import Channel, Message
from tests.vmtest.errors import GuestFailed, MachineLost, Result
from tests.vmtest.machine import Machine, Stick, argv, stick_blockdev, stick_devices

LOG = logging.getLogger(__name__)

LIFETIME = 3600
# A command gets this much unless the test knows better. TCG on a busy host is slow.
COMMAND_SECONDS = 120.0
# How much longer than its command the agent may take to say that it has killed it.
GRACE_SECONDS = 20.0
BOOT_SECONDS = 180.0
QMP_SECONDS = 30.0
CHUNK = 1 << 19
CONSOLE_LINES = 40

# No guest boots and resets again in this time.
ECHO_SECONDS = 2.0

# After these events the guest is not the one that it was.
RESTARTS = ("RESET", "SHUTDOWN")

# The test that runs now, if no mark says that it boots machines (see plugin.py).
unmarked = ""


class VM:
    def __init__(
        self,
        machine: Machine,
        workdir: Path,
        process: subprocess.Popen[bytes],
        qmp: QEMUMonitorProtocol,
        channel: Channel,
    ) -> None:
        # As it is now: plug() and unplug() change it.
        self.machine = machine
        self.workdir = workdir
        # QMP events that nobody has waited for yet, oldest first.
        self.events: list[dict[str, Any]] = []
        self._process = process
        self._qmp = qmp
        self._channel = channel
        # The guest's boot id, once its agent has answered.
        self._boot: str | None = None
        self._answers: dict[int, Message] = {}
        self._started = time.monotonic()
        self._last_reset = 0.0

    # Commands and files

    def run(
        self,
        command: Sequence[str],
        *,
        timeout: float = COMMAND_SECONDS,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        stdin: bytes = b"",
    ) -> Result:
        """Run a command in the guest, as root and without a shell."""
        request = self.start(command, timeout=timeout, env=env, cwd=cwd, stdin=stdin)
        return self.finish(request, command, timeout=timeout, check=check)

    def shell(self, script: str, **options: Any) -> Result:
        return self.run(["/bin/sh", "-ec", script], **options)

    def start(
        self,
        command: Sequence[str],
        *,
        timeout: float = COMMAND_SECONDS,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        stdin: bytes = b"",
    ) -> int:
        """Begin a command and do not wait: for finish(), or for one that brings the guest down."""
        return self._send(
            {
                "op": "run",
                "argv": list(command),
                "env": dict(env or {}),
                "cwd": cwd,
                "stdin": base64.b64encode(stdin).decode(),
                "timeout": timeout,
            }
        )

    def finish(
        self,
        request: int,
        command: Sequence[str],
        *,
        timeout: float = COMMAND_SECONDS,
        check: bool = True,
    ) -> Result:
        what = f"the end of {' '.join(command)!r}"
        result = _result(command, self._answer(request, timeout + GRACE_SECONDS, what))
        if result.timed_out or (check and result.status != 0):
            raise GuestFailed(result)
        return result

    def put(self, content: bytes | Path, path: str, *, mode: int = 0o644) -> None:
        """Write a file in the guest; directories that miss are made."""
        data = content.read_bytes() if isinstance(content, Path) else content
        for offset in range(0, len(data) or 1, CHUNK):
            piece = base64.b64encode(data[offset : offset + CHUNK]).decode()
            request = {"op": "put", "path": path, "mode": mode, "first": not offset, "data": piece}
            self._transfer(request)

    def get(self, path: str) -> bytes:
        data = b""
        while True:
            request = {"op": "get", "path": path, "offset": len(data), "length": CHUNK}
            piece = base64.b64decode(self._transfer(request)["data"])
            if not piece:
                return data
            data += piece

    def _transfer(self, request: Message) -> Message:
        what = f"{request['op']} {request['path']}"
        answer = self._answer(self._send(request), COMMAND_SECONDS, what)
        if "error" in answer:
            argv_shown = (str(request["op"]), str(request["path"]))
            raise GuestFailed(Result(argv_shown, 1, stderr=answer["error"].encode()))
        return answer

    # The agent

    def wait_for_agent(self, timeout: float = BOOT_SECONDS) -> None:
        """Until the agent of the present boot answers; also sets the guest's clock."""
        if self._boot is not None:
            return
        deadline = time.monotonic() + timeout
        request = self._hello()
        while (answer := self._answers.pop(request, None)) is None:
            # An agent that has just started may have missed the greeting.
            if self._receive(deadline, "the agent").get("id") is None:
                request = self._hello()
        self._boot = answer["boot"]
        LOG.info("agent answers after %.1f s", time.monotonic() - self._started)

    def _hello(self) -> int:
        return self._transmit({"op": "hello", "time": time.time()})

    def _send(self, request: Message) -> int:
        self.wait_for_agent()
        return self._transmit(request | {"boot": self._boot})

    def _transmit(self, request: Message) -> int:
        try:
            return self._channel.send(request, QMP_SECONDS)
        except OSError as error:
            raise self._lost(f"cannot send to the agent: {error}") from error

    def _answer(self, request: int, timeout: float, what: str) -> Message:
        deadline = time.monotonic() + timeout
        while request not in self._answers:
            self._receive(deadline, what)
        return self._answers.pop(request)

    def _receive(self, deadline: float, what: str) -> Message:
        """The next message from the guest; notices early when there will be none."""
        while True:
            restart = next((each for each in self._pull_events() if _restarts(each)), None)
            left = deadline - time.monotonic()
            # What was sent before a restart still counts, so this comes before giving up.
            try:
                message = self._channel.receive(0 if restart else min(0.25, max(0.0, left)))
            except (EOFError, ConnectionError) as error:
                raise self._lost(f"while waiting for {what}") from error
            if message is not None:
                if "id" in message:
                    self._answers[message["id"]] = message
                return message
            if restart:
                raise self._lost(f"the guest restarted while waiting for {what}: {restart}")
            if left <= 0:
                raise self._lost(f"time is over while waiting for {what}")

    # The machine

    def qmp(self, command: str, **arguments: object) -> Any:
        try:
            return self._qmp.cmd(command, **arguments)
        except ExecuteError:
            # QEMU understood and refused: the caller's mistake, not a lost machine.
            raise
        except (QMPError, OSError, TimeoutError) as error:
            raise self._lost(f"no answer to QMP {command}") from error

    def plug(self, stick: str | Stick) -> None:
        """Plug in a stick that the machine knows by its id, or a new one."""
        chosen = self.machine.stick(stick) if isinstance(stick, str) else stick
        machine = self.machine.with_stick(replace(chosen, plugged=True))
        self.qmp("blockdev-add", **stick_blockdev(chosen))
        for device in stick_devices(machine, chosen):
            self.qmp("device_add", **device)
        if chosen.driver == "usb-uas":
            # QEMU holds it back, so that the guest does not look before its disk is there.
            path = f"/machine/peripheral/{chosen.id}"
            self.qmp("qom-set", path=path, property="attached", value=True)
        self.machine = machine

    def unplug(self, stick_id: str) -> None:
        """Pull the stick; after this its image is nobody's and can be read."""
        stick = self.machine.stick(stick_id)
        self.qmp("device_del", id=stick_id)
        node = stick_blockdev(stick)["node-name"]
        deadline = time.monotonic() + QMP_SECONDS
        while True:
            try:
                self.qmp("blockdev-del", **{"node-name": node})
                break
            except ExecuteError:
                # The device is still on its way out.
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
        """Until the guest reboots or switches off. Then wait_for_agent() waits for the new boot."""
        return self.wait_for_event(*RESTARTS, timeout=timeout)

    def wait_for_event(self, *names: str, timeout: float) -> dict[str, Any]:
        """The next event of these names; it and those before it are then dealt with."""
        deadline = time.monotonic() + timeout
        while True:
            for index, event in enumerate(self._pull_events(wait=0.25)):
                if event["event"] in names:
                    if any(_restarts(each) for each in self.events[: index + 1]):
                        self._boot = None
                        self._answers.clear()
                    del self.events[: index + 1]
                    return event
            wanted = " or ".join(names)
            if self._process.poll() is not None and not self._pull_events():
                raise self._lost(f"while waiting for {wanted}")
            if time.monotonic() > deadline:
                raise self._lost(f"time is over while waiting for {wanted}")

    def _pull_events(self, wait: float = 0.0) -> list[dict[str, Any]]:
        # On a connection that QEMU has closed, the events that came before can still be had.
        with suppress(asyncio.TimeoutError, QMPError, OSError):
            event = self._qmp.pull_event(wait=wait)
            while event:
                self._note(dict(event))
                event = self._qmp.pull_event()
        return self.events

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "RESET":
            # A kernel that reboots tries several ways, of which more than one may work.
            echo = _seconds(event) - self._last_reset < ECHO_SECONDS
            self._last_reset = _seconds(event)
            if echo:
                return
        self.events.append(event)

    def quit(self) -> None:
        """End QEMU, with its images written back."""
        with suppress(QMPError, OSError, asyncio.TimeoutError):
            self._qmp.cmd("quit")
        try:
            self._process.wait(QMP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End QEMU as a power cut would."""
        self._process.kill()
        self._process.wait()

    # The console: to follow progress and to explain failures, never to get results

    @property
    def console(self) -> str:
        path = self.workdir / "console.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def wait_for_console(self, pattern: str, timeout: float) -> str:
        """The first line of the console that matches, from its beginning."""
        deadline = time.monotonic() + timeout
        while True:
            for line in self.console.splitlines():
                if re.search(pattern, line):
                    return line
            if self._process.poll() is not None:
                raise self._lost(f"while waiting for {pattern!r} on the console")
            if time.monotonic() > deadline:
                raise self._lost(f"time is over while waiting for {pattern!r} on the console")
            time.sleep(0.1)

    def _lost(self, reason: str) -> MachineLost:
        # QEMU's sockets close a moment before it can be waited for.
        with suppress(subprocess.TimeoutExpired):
            status = self._process.wait(0.5)
            said = (self.workdir / "qemu.log").read_text(encoding="utf-8", errors="replace")
            reason = f"{reason}: QEMU ended with status {status} {said.strip()}".rstrip()
        return MachineLost(reason, "\n".join(self.console.splitlines()[-CONSOLE_LINES:]))


def _seconds(event: Mapping[str, Any]) -> float:
    stamp = event["timestamp"]
    return float(stamp["seconds"]) + float(stamp["microseconds"]) / 1e6


def _restarts(event: Mapping[str, Any]) -> bool:
    return event["event"] in RESTARTS


def _result(command: Sequence[str], answer: Message) -> Result:
    argv_run = tuple(command)
    if "error" in answer:
        # What a shell says about a command that it cannot start.
        return Result(argv_run, 127, stderr=answer["error"].encode())
    return Result(
        argv_run,
        answer["status"],
        stdout=base64.b64decode(answer["stdout"]),
        stderr=base64.b64decode(answer["stderr"]),
        seconds=answer["seconds"],
        cpu=answer["cpu"],
        rss_kib=answer["rss_kib"],
        timed_out=answer["timed_out"],
    )


@contextmanager
def running(machine: Machine, workdir: Path) -> Iterator[VM]:
    """Start the machine. A work directory that has its disks already goes on with them."""
    prepare(machine, workdir)
    with ExitStack() as stack:
        qmp_socket, qmp_end = socket.socketpair()
        agent_socket, agent_end = socket.socketpair()
        channel = Channel(agent_socket)
        stack.callback(channel.close)
        stack.callback(qmp_socket.close)
        with qmp_end, agent_end:
            command = argv(machine, workdir, qmp_fd=qmp_end.fileno(), agent_fd=agent_end.fileno())
            process = spawn(command, workdir, (qmp_end.fileno(), agent_end.fileno()))
        stack.callback(_end, process)
        qmp = QEMUMonitorProtocol(qmp_socket)
        qmp.settimeout(QMP_SECONDS)
        vm = VM(machine, workdir, process, qmp, channel)
        try:
            qmp.connect()
        except QMPError as error:
            raise vm._lost("QEMU does not start") from error
        stack.callback(_close, qmp)
        stack.callback(vm.quit)
        yield vm


def prepare(machine: Machine, workdir: Path) -> None:
    """Make the files that the machine writes to, where they are not there."""
    workdir.mkdir(parents=True, exist_ok=True)
    for disk in machine.disks:
        if not disk.overlay(workdir).exists():
            # fmt: off
            command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", disk.format,
                       "-b", str(disk.image.absolute()), str(disk.overlay(workdir))]
            # fmt: on
            subprocess.run(command, check=True)
    if machine.firmware and not machine.firmware.copy(workdir).exists():
        shutil.copyfile(machine.firmware.variables, machine.firmware.copy(workdir))


def spawn(command: Sequence[str], workdir: Path, fds: Sequence[int]) -> subprocess.Popen[bytes]:
    if unmarked:
        raise RuntimeError(f"{unmarked} boots a machine (name its fixture in BOOTS of plugin.py)")
    # Whatever happens to this process, the machine does not stay behind.
    guard = ["prlimit", f"--cpu={LIFETIME}", "setpriv", "--pdeathsig", "KILL", "--"]
    with (workdir / "qemu.log").open("wb") as log:
        return subprocess.Popen(
            [*guard, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=fds
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _close(qmp: QEMUMonitorProtocol) -> None:
    # QEMU may be gone, which is what we want.
    with suppress(QMPError, OSError, asyncio.TimeoutError, EOFError):
        qmp.close()
