# SPDX-License-Identifier: GPL-2.0-or-later
"""What a row does to a resumed machine, and what it finds on the stick afterwards."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.faults.ground import Ground
from tests.vm import service, vmcore
from tests.vmtest import snapshot, stick
from tests.vmtest.machine import Stick
from tests.vmtest.vm import VM

MIB = 1 << 20
# Of a crash, also of one that takes long to come.
SECONDS = 2 * service.CRASH_SECONDS
# Crashes of the endurance row, unless the command line says another number.
CYCLES = 100

# A way to crash: gets the machine and the mark, which it gives to the process that crashes.
Crash = Callable[[VM, str], None]


class Bench:
    """One row's machine, its sticks, and a directory for what is restored."""

    def __init__(self, vm: VM, ground: Ground, workdir: Path, cycles: int) -> None:
        self.vm = vm
        self.keys = ground.keys
        self.kver = ground.kver
        self.workdir = workdir
        # How often the endurance row crashes.
        self.cycles = cycles
        self.mark = service.mark()
        # From the crash to the final action.
        self.seconds = 0.0
        self.image = stick.Image(vm.machine.stick("stick").image, "vfat")
        # Whether the file system of the stick may be damaged.
        self.torn = False
        self._copies = 0

    # Before the crash

    def new_stick(self, name: str = "other", **how: Any) -> stick.Image:
        return stick.make(self.workdir / f"{name}.img", **how)

    def swap(self, image: stick.Image, **changes: Any) -> None:
        """Pull the usual stick, and plug in another one; `changes` are fields of Stick."""
        self.vm.unplug("stick")
        self.vm.plug(Stick("other", image.path, **changes))
        self.image = image

    def move(self, port: str) -> None:
        """Plug the usual stick, which was pulled, into another port."""
        self.vm.plug(replace(self.vm.machine.stick("stick"), port=port))

    def script(self, text: str, configuration: str = "") -> None:
        """Arm the machine again, with a script that runs before the dump."""
        self.vm.put(f"#!/bin/sh\n{text}\n".encode(), "/root/script", mode=0o755)
        service.reconfigure(self.vm, f"[dump]\nscript = /root/script\n{configuration}")

    # The crash

    def crash(self, how: Crash = service.crash) -> None:
        """Crash, wait for the final action, and end the machine."""
        self.start(how)
        self.wait()

    def start(self, how: Crash = service.crash) -> None:
        self._started = time.monotonic()
        how(self.vm, self.mark)

    def wait(self) -> dict[str, Any]:
        event = self.vm.wait_for_reboot(SECONDS)
        self.seconds = time.monotonic() - self._started
        self.vm.quit()
        return event

    def says(self, text: str) -> None:
        """The console has this text."""
        assert text in self.vm.console, f"the console does not say {text!r}"

    # Afterwards

    def dumps(self, image: stick.Image | None = None) -> tuple[service.Dump, ...]:
        self._copies += 1
        files = self.workdir / f"files-{self._copies}"
        return service.dumps(image or self.image, files, torn=self.torn)

    def restore(self, dump: service.Dump) -> tuple[Path, int, str]:
        """Restore a dump on this machine: directory, exit status, and what was said."""
        target = self.workdir / f"restored-{dump.directory.parents[2].name}-{dump.directory.name}"
        command = [sys.executable, "-m", "tinykdump", "restore", str(dump.directory),
                   "--output", str(target), "--keys", str(self.keys.home)]  # fmt: skip
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return target, done.returncode, done.stderr

    def saved(self, text: str = "") -> str:
        """The new dump is complete, and has the mark in its log and in its memory.

        Its log has `text`, too: what is printed in an NMI does not reach the console any more.
        """
        dump = self.dumps()[-1]
        assert dump.complete, f"the dump is partial; {self.last_words()}"
        self.says("dump saved; final action: ")
        log = self.whole(dump)
        assert text in log, f"the log does not say {text!r}"
        return f"complete dump of {dump.size // MIB} MiB, restored"

    def whole(self, dump: service.Dump) -> str:
        """The dump can be restored, and has the mark in its memory and in its log, returned."""
        target, status, said = self.restore(dump)
        assert status == 0, f"restore ends with {status}: {said}"
        log = (target / "vmcore-dmesg.txt").read_text(errors="replace")
        assert self.mark in log
        assert self.mark in vmcore.log(target / "vmcore")
        return log

    def log_only(self) -> str:
        """The dump is partial and says so; its log has the mark."""
        dump = self.dumps()[-1]
        assert not dump.complete, "the dump counts as complete"
        assert "saved as " not in self.vm.console, "the console says that it was saved"
        target, status, _ = self.restore(dump)
        assert status == 1, f"restore of a partial dump ends with {status}"
        assert not (target / "vmcore").exists(), "restore writes a vmcore"
        assert self.mark in (target / "vmcore-dmesg.txt").read_text(errors="replace")
        return f"partial dump, its log restored; {self.last_words()}"

    def last_words(self) -> str:
        """The reason that the crash kernel logged, which tinykdump status prints."""
        lines = [line for line in self.vm.console.splitlines() if "] failed: " in line]
        return lines[0].split("] ", 2)[-1].strip() if lines else "no reason was logged"


@contextmanager
def resumed(ground: Ground, workdir: Path, cycles: int = CYCLES) -> Iterator[Bench]:
    with snapshot.resumed(ground.machine, ground.snapshot, workdir / "vm") as vm:
        yield Bench(vm, ground, workdir, cycles)
