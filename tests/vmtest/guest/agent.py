#!/usr/bin/python3 -IS
# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests' hand in the guest: runs commands and moves files over a virtio serial port.

Both ways one JSON object a line, bytes as base64. A request has an "id" that its answer repeats; a
line with "boot" and no "id" says that an agent has started. Every line names the boot it is from,
because bytes can wait in the port while the guest restarts.
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
    """Reads and writes lines; the other end may come and go when the machine is a snapshot."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR)
        self.lock = threading.Lock()
        self.buffer = bytearray()

    def send(self, message: Message) -> None:
        # The newline before it ends whatever a former boot left unfinished.
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
                # Nobody is connected. What was half received will not be completed.
                self.buffer.clear()
                time.sleep(0.05)
            self.buffer += chunk


def run(request: Message) -> Message:
    # Files, not pipes: a daemon that keeps its standard output open must not keep us waiting.
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
        # wait4, not process.wait(), for the processor time and memory of this very child.
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
    # A machine that was a snapshot has slept; keys made since would be from the future to gpg.
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
            # The rest of a line whose beginning a former boot got, or the empty line between two.
            continue
        if request["op"] == "hello" or request["boot"] == BOOT:
            threading.Thread(target=answer, args=(port, request), daemon=True).start()


if __name__ == "__main__":
    main()
