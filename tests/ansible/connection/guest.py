# SPDX-License-Identifier: GPL-2.0-or-later
"""Ansible's way into a guest: a socket at which the test waits, which has the guest's agent."""

import json
import os
import socket
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: guest
short_description: Run tasks in a guest of the tests
description: The environment variable TINYKDUMP_GUEST is the path of the test's socket.
extends_documentation_fragment: [connection_pipelining]
"""


class Connection(ConnectionBase):  # type: ignore[misc] # ansible has no types
    """Each request is a connection of its own."""

    transport = "guest"
    has_pipelining = True

    def _connect(self) -> "Connection":
        return self

    def close(self) -> None:
        """Nothing stays open."""

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Run a command line of a shell; its status and output."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        answer = _ask({"op": "run", "command": cmd, "stdin": b64encode(in_data or b"").decode()})
        return answer["status"], b64decode(answer["stdout"]), b64decode(answer["stderr"])

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file into the guest."""
        super().put_file(in_path, out_path)
        _ask({"op": "put", "from": in_path, "to": out_path})

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file out of the guest."""
        super().fetch_file(in_path, out_path)
        Path(out_path).write_bytes(b64decode(_ask({"op": "get", "from": in_path})["data"]))


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(os.environ["TINYKDUMP_GUEST"])
        there.sendall(json.dumps(request).encode())
        there.shutdown(socket.SHUT_WR)
        with there.makefile("rb") as file:
            answer: dict[str, Any] = json.loads(file.read() or b'{"error": "the test ended"}')
    if "error" in answer:
        raise AnsibleConnectionFailure(answer["error"])
    return answer
