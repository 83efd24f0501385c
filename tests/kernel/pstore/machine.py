"""A guest in QEMU that survives its own resets, and is told what to do in each of its boots."""

import base64
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

# Under emulation on a busy host, the check of the timer fails at times.
COMMON = "console=ttyS0 no_timer_check kunit.enable=0"
# A boot takes 15 s alone, and many times that beside two other guests.
BOOT_SECONDS = 300
ORDER_SECONDS = 120

# A hardware watchdog, and how it is started in the guest: nobody feeds it.
WATCHDOG = ("-device", "i6300esb", "-action", "watchdog=reset")
# A kernel that loops with interrupts off, and one that goes on after it has killed a process.
HANG = "echo HARDLOCKUP >/sys/kernel/debug/provoke-crash/DIRECT"
OOPS = "(echo BUG >/sys/kernel/debug/provoke-crash/DIRECT); true"
# More than any backend has room for. The worker gets a moment: a dump makes no room.
FLOOD = (
    "i=0; while [ $i -lt 1500 ]; do i=$((i + 1)); "
    'echo "<14>line $i $RANDOM$RANDOM$RANDOM$RANDOM$RANDOM$RANDOM"; '
    "done >/dev/kmsg; sleep 3"
)
WATCHDOG_ON = "[ -c /dev/watchdog0 ] && exec 9>/dev/watchdog0 && echo x >&9"


class LostMachineError(Exception):
    """The guest did not answer: nothing is known about what it was to show."""


class GuestError(Exception):
    """An order failed in the guest."""


@dataclass(frozen=True)
class Hardware:
    kernel: Path
    initramfs: Path
    # What the first kernel is told on top of the console.
    command_line: str = ""
    devices: tuple[str, ...] = ()
    memory: str = "1G"
    cpus: int = 2


@dataclass
class Machine:
    hardware: Hardware
    directory: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _control: socket.socket | None = field(default=None, init=False)
    _pending: bytes = field(default=b"", init=False)

    @property
    def log(self) -> str:
        """All that the serial console showed, in all boots."""
        return (self.directory / "console.log").read_text(errors="replace")

    def _argv(self, control: Path) -> list[str]:
        hardware = self.hardware
        return [
            shutil.which("qemu-system-x86_64") or "qemu-system-x86_64",
            "-accel", "tcg,thread=multi", "-cpu", "max",
            "-m", hardware.memory, "-smp", str(hardware.cpus),
            "-display", "none", "-nodefaults", "-no-user-config",
            "-serial", f"file:{self.directory / 'console.log'}",
            "-chardev", f"socket,id=control,path={control}", "-serial", "chardev:control",
            "-kernel", str(hardware.kernel / "vmlinuz"),
            "-initrd", str(hardware.initramfs),
            "-append", f"{COMMON} {hardware.command_line}",
            *hardware.devices,
        ]  # fmt: skip

    def __enter__(self) -> "Machine":
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "control"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
            listener.bind(str(path))
            listener.listen(1)
            listener.settimeout(30)
            log = stack.enter_context((self.directory / "qemu.log").open("w"))
            self._process = subprocess.Popen(self._argv(path), stdin=subprocess.DEVNULL, stderr=log)
            try:
                self._control, _ = listener.accept()
            except TimeoutError as error:
                self._process.kill()
                raise LostMachineError((self.directory / "qemu.log").read_text()) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._control:
            self._control.close()
        if self._process:
            self._process.kill()
            self._process.wait()

    def _line(self, seconds: float) -> str:
        assert self._control
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            self._control.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                data = self._control.recv(65536)
            except TimeoutError:
                data = b""
            if not data:
                tail = "\n".join(self.log.splitlines()[-30:])
                raise LostMachineError(f"no answer within {seconds} s; the console ends in\n{tail}")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace").strip()

    def boot(self, role: str, seconds: float = BOOT_SECONDS) -> None:
        """Wait until init runs, and make sure that it is in the expected kernel."""
        deadline = time.monotonic() + seconds
        while True:
            # A reset can leave half a line, or noise of the firmware.
            line = self._line(deadline - time.monotonic())
            if "hello " in line:
                break
        assert line.endswith(f"hello {role}"), f"expected the {role} kernel, got {line!r}"

    def post(self, order: str) -> None:
        """Give an order that does not come back: a crash, a reboot."""
        assert self._control
        self._control.sendall(base64.b64encode(order.encode()) + b"\n")

    def run(self, order: str, seconds: float = ORDER_SECONDS) -> str:
        self.post(order)
        status, _, output = self._line(seconds).partition(" ")
        text = base64.b64decode(output).decode(errors="replace")
        if status != "0":
            raise GuestError(f"{order!r} gave {status}:\n{text}")
        return text

    def load_crash_kernel(self, command_line: str) -> None:
        options = f"{COMMON} {command_line}"
        self.run(f"kexec -p -s /crash/kernel --initrd=/crash/initrd --command-line='{options}'")

    def crash(self) -> None:
        self.post("echo c >/proc/sysrq-trigger")
        self.boot("crash")

    def records(self) -> dict[str, str]:
        """What pstore has, by name."""
        self.run("grep -q ' /pstore ' /proc/mounts || mount -t pstore pstore /pstore")
        names = self.run("ls /pstore").split()
        return {name: self.run(f"cat /pstore/{name}") for name in names}


def console_records(records: dict[str, str]) -> list[str]:
    """The records of a crash kernel's console, oldest first."""
    names: Sequence[str] = [name for name in records if name.startswith("kexec-console-")]
    ordered = sorted(names, key=lambda name: int(name.rpartition("-")[2]))
    return [records[name] for name in ordered]
