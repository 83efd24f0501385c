#!/usr/bin/python3 -IS
# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent of the tests in the guest: runs commands and copies files over a virtio serial port.

Each line is a JSON object, in both directions, with bytes as base64. A request has an "id", which
its answer repeats. A line with "boot" but no "id" says that an agent has started. Every line names
its boot, because data can stay in the port while the guest restarts.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

PORT = "org.tinykdump.agent"
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

Message = dict[str, Any]


def find_port() -> str:
    # Without udev there is no /dev/virtio-ports.
    for name in Path("/sys/class/virtio-ports").glob("*/name"):
        if name.read_text(encoding="ascii").strip() == PORT:
            return f"/dev/{name.parent.name}"
    sys.exit(f"agent: there is no virtio serial port named {PORT}")


class Port:
    """Reads and writes lines; the host disconnects when it saves a snapshot."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR)
        self.lock = threading.Lock()
        self.buffer = bytearray()

    def send(self, message: Message) -> None:
        # The newline at the start ends an unfinished line of an earlier boot.
        data = memoryview(b"\n" + json.dumps(message | {"boot": BOOT}).encode() + b"\n")
        with self.lock:
            while data:
                data = data[os.write(self.fd, data) :]

    def read_line(self) -> bytes:
        while True:
            end = self.buffer.find(b"\n")
            if end >= 0:
                line = bytes(self.buffer[:end])
                del self.buffer[: end + 1]
                return line
            chunk = os.read(self.fd, 1 << 18)
            if not chunk:
                # The host is not connected, and will not complete a partial line.
                self.buffer.clear()
                time.sleep(0.05)
            self.buffer += chunk


def run(request: Message) -> Message:
    # Files, not pipes: a daemon that keeps its standard output open must not block the agent.
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(base64.b64decode(request["stdin"]))
        stdin.seek(0)
        started = time.monotonic()
        process = subprocess.Popen(
            request["argv"],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=request["cwd"],
            env=os.environ | request["env"],
            start_new_session=True,
        )
        # wait4() instead of process.wait() returns the CPU time and the memory of this child.
        killed = threading.Event()
        timer = threading.Timer(request["timeout"], kill, (process.pid, killed))
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        return {
            "status": process.returncode,
            "timed_out": killed.is_set(),
            "stdout": content(stdout),
            "stderr": content(stderr),
            "seconds": time.monotonic() - started,
            "cpu": usage.ru_utime + usage.ru_stime,
            "rss_kib": usage.ru_maxrss,
        }


def kill(session: int, killed: threading.Event) -> None:
    killed.set()
    os.killpg(session, signal.SIGKILL)


def content(file: BinaryIO) -> str:
    file.seek(0)
    return base64.b64encode(file.read()).decode()


def put(request: Message) -> Message:
    path = Path(request["path"])
    if request["first"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        path.chmod(request["mode"])
    with path.open("ab") as file:
        file.write(base64.b64decode(request["data"]))
    return {}


def get(request: Message) -> Message:
    with Path(request["path"]).open("rb") as file:
        file.seek(request["offset"])
        return {"data": base64.b64encode(file.read(request["length"])).decode()}


def hello(request: Message) -> Message:
    # In a resumed snapshot the clock is behind, and gpg would reject newer keys.
    if abs(time.time() - request["time"]) > 2:
        time.clock_settime(time.CLOCK_REALTIME, request["time"])
    return {}


OPERATIONS = {"run": run, "put": put, "get": get, "hello": hello}


def answer(port: Port, request: Message) -> None:
    try:
        reply = OPERATIONS[request["op"]](request)
    except Exception as error:
        reply = {"error": f"{type(error).__name__}: {error}"}
    port.send(reply | {"id": request["id"]})


def main() -> None:
    port = Port(find_port())
    port.send({})
    while True:
        try:
            request = json.loads(port.read_line())
        except ValueError:
            # An empty line, or the rest of a line that an earlier boot has read in part.
            continue
        if request["op"] == "hello" or request["boot"] == BOOT:
            threading.Thread(target=answer, args=(port, request), daemon=True).start()


if __name__ == "__main__":
    main()
