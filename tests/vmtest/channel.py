# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's end of the agent's port: lines of JSON on a socket (see guest/agent.py)."""

import json
import select
import socket
import time
from typing import Any

Message = dict[str, Any]


class Channel:
    """Sends and receives messages, whatever they mean."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._last_id = 0

    def send(self, message: Message, seconds: float) -> int:
        """Returns the id of the request. Raises TimeoutError if the guest does not read it."""
        self._last_id += 1
        line = json.dumps(message | {"id": self._last_id}).encode() + b"\n"
        self._socket.settimeout(seconds)
        self._socket.sendall(line)
        return self._last_id

    def receive(self, seconds: float) -> Message | None:
        """The next message, or None after the timeout. Raises EOFError when QEMU has ended."""
        deadline = time.monotonic() + seconds
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                message = _parse(bytes(line))
                if message is not None:
                    return message
                continue
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                return None
            chunk = self._socket.recv(1 << 18)
            if not chunk:
                raise EOFError
            self._buffer += chunk

    def close(self) -> None:
        self._socket.close()


def _parse(line: bytes) -> Message | None:
    # A guest that resets can leave a partial line; the agent of the next boot ends that line.
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
