# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose guest has the agent: `with running(machine, workdir) as vm: vm.run(["id"])`.

A VM belongs to the thread that made it.
"""

import base64
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.vmtest.channel import Channel, Message
from tests.vmtest.errors import GuestFailed, Result
from tests.vmtest.machine import Machine
from tests.vmtest.qemu import QMP_SECONDS, Qemu, restarts, started

LOG = logging.getLogger(__name__)

# Default time limit of a command. TCG on a busy host is slow.
COMMAND_SECONDS = 900.0
# How long the agent may take after that to report that it killed the command.
GRACE_SECONDS = 20.0
BOOT_SECONDS = 600.0
CHUNK = 1 << 19


class VM(Qemu):
    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._channel = Channel(self.connection)
        # The guest's boot id; None until its agent answers.
        self._boot: str | None = None
        self._answers: dict[int, Message] = {}

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
        """Start a command and do not wait: call finish(), unless the command ends the guest."""
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
        """Write a file in the guest, and make missing directories."""
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

    def _forget(self) -> None:
        self._boot = None
        self._answers.clear()

    def wait_for_agent(self, timeout: float = BOOT_SECONDS) -> None:
        """Wait until the agent of this boot answers; also sets the guest's clock."""
        if self._boot is not None:
            return
        deadline = time.monotonic() + timeout
        request = self._hello()
        while (answer := self._answers.pop(request, None)) is None:
            # An agent that has just started may have missed the request.
            if self._receive(deadline, "the agent").get("id") is None:
                request = self._hello()
        self._boot = answer["boot"]
        LOG.info("agent answers after %.1f s", time.monotonic() - self.started)

    def _hello(self) -> int:
        return self._transmit({"op": "hello", "time": time.time()})

    def _send(self, request: Message) -> int:
        self.wait_for_agent()
        return self._transmit(request | {"boot": self._boot})

    def _transmit(self, request: Message) -> int:
        try:
            return self._channel.send(request, QMP_SECONDS)
        except OSError as error:
            raise self.lost(f"cannot send to the agent: {error}") from error

    def _answer(self, request: int, timeout: float, what: str) -> Message:
        deadline = time.monotonic() + timeout
        while request not in self._answers:
            self._receive(deadline, what)
        return self._answers.pop(request)

    def _receive(self, deadline: float, what: str) -> Message:
        """The next message from the guest. Raises MachineLost early if the guest restarts."""
        while True:
            restart = next((each for each in self.pull_events() if restarts(each)), None)
            left = deadline - time.monotonic()
            # First read what the guest sent before a restart.
            try:
                message = self._channel.receive(0 if restart else min(0.25, max(0.0, left)))
            except (EOFError, ConnectionError) as error:
                raise self.lost(f"while waiting for {what}") from error
            if message is not None:
                if "id" in message:
                    self._answers[message["id"]] = message
                return message
            if restart:
                raise self.lost(f"the guest restarted while waiting for {what}: {restart}")
            if left <= 0:
                raise self.lost(f"timeout while waiting for {what}")


def _result(command: Sequence[str], answer: Message) -> Result:
    argv_run = tuple(command)
    if "error" in answer:
        # The status that a shell gives for a command that it cannot start.
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


def running(machine: Machine, workdir: Path) -> AbstractContextManager[VM]:
    """Start a machine whose guest has the agent."""
    return started(VM, machine, workdir)
