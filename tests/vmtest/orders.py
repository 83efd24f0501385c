# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose guest runs only the small init: `guest.boot("normal"); guest.run("id")`.

The init runs in the system kernel and in the crash kernel, from the same initramfs
(initramfs.small()). Orders go over the second serial port, which every kernel drives early.
"""

import base64
import select
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from tests.vmtest.errors import GuestFailed, Result
from tests.vmtest.machine import Machine
from tests.vmtest.qemu import Qemu, started

# A boot takes 15 s on an idle host, and much longer beside two other guests.
BOOT_SECONDS = 600.0
ORDER_SECONDS = 300.0


class Guest(Qemu):
    _pending = b""

    def boot(self, role: Literal["normal", "crash"], seconds: float = BOOT_SECONDS) -> None:
        """Wait until the init runs, and check that it runs in the expected kernel."""
        deadline = time.monotonic() + seconds
        while True:
            # A reset can leave a partial line, or output of the firmware.
            line = self._line(deadline - time.monotonic(), f"the {role} kernel")
            if "hello " in line:
                break
        assert line.endswith(f"hello {role}"), f"expected the {role} kernel, got {line!r}"

    def post(self, order: str) -> None:
        """Send an order that does not return: a crash, a reboot."""
        try:
            self.connection.sendall(base64.b64encode(order.encode()) + b"\n")
        except OSError as error:
            raise self.lost(f"cannot send {order!r}") from error

    def run(self, order: str, seconds: float = ORDER_SECONDS) -> str:
        """Run a shell script; returns its stdout and stderr. Raises GuestFailed if it fails."""
        self.post(order)
        status, _, output = self._line(seconds, f"the end of {order!r}").partition(" ")
        result = Result(("sh", "-c", order), int(status), stdout=base64.b64decode(output))
        if result.status:
            raise GuestFailed(result)
        return result.text

    def _line(self, seconds: float, what: str) -> str:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.connection], [], [], left)[0]:
                raise self.lost(f"timeout while waiting for {what}")
            try:
                data = self.connection.recv(65536)
            except OSError:
                data = b""
            if not data:
                raise self.lost(f"while waiting for {what}")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace").strip()


def running(machine: Machine, workdir: Path) -> AbstractContextManager[Guest]:
    """Start a machine whose guest is the small init: one with hand="init"."""
    return started(Guest, machine, workdir)
