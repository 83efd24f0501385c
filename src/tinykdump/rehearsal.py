# SPDX-License-Identifier: GPL-2.0-or-later
"""Rehearses a crash in QEMU: an installed kernel, its image and as much memory as is reserved.

The guest's system kernel loads the crash kernel as load.py does, and crashes. The crash kernel
saves a dump to a virtual stick, which is then checked here. What a rehearsal cannot show is this
machine's own hardware and firmware, and a dump of all its memory.
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from tinykdump import (
    distribution,
    files,
    guest,
    load,
    mounts,
    reservation,
    state,
    stick,
)
from tinykdump.architecture import Emulator
from tinykdump.clock import local, shown
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import FILESYSTEMS, MADE, command
from tinykdump.guest import Guest, Outcome
from tinykdump.host import Host
from tinykdump.image import archive, entries, programs
from tinykdump.image.entries import Entry
from tinykdump.image.libraries import libraries
from tinykdump.image.manifest import Manifest
from tinykdump.kernels import Kernel
from tinykdump.memory import MIB
from tinykdump.readback import Wanted, check
from tinykdump.run import is_installed, run, started
from tinykdump.status import Rehearsal

NOTE = state.STATE / "rehearsal.json"
PLACE = state.STATE / "rehearsal"
CONSOLE = PLACE / "console.log"  # of the last rehearsal; all other files there are deleted

_KVM = Path("/dev/kvm")
# On some hosts /dev/kvm can be opened, but guests hang: seconds for a kernel to start.
_KVM_SECONDS = 30.0
# Seconds without a line on the console. While it waits or saves, the crash kernel says so.
_SILENCE = 300.0
# Seconds for all of it: a kernel can hang and go on saying that it does.
_LONGEST = 3600.0

_APPLETS = ("cat", "mount", "rm", "sh", "tail")
# How a file system gets the UUID that an image looks for.
_UUID = {"vfat": "-i", "ext4": "-U"}

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """What is rehearsed. It is read at once: an image can be replaced meanwhile."""

    system: Kernel  # that crashes
    system_image: bytes
    image: Manifest
    crash_image: bytes  # the kernel image of the crash kernel, often the same
    packed: bytes
    reserved: int  # bytes

    @property
    def emulator(self) -> Emulator:
        return self.system.architecture.emulator


def subject(host: Host, config: Config, kver: str) -> Subject:
    """A crash of that kernel, with the image that is loaded for it, otherwise the one it has.

    An empty ``kver`` is the running kernel. Raises TinykdumpError.
    """
    with state.lock(host):
        system = state.find_kernel(host, kver or host.running_kernel())
        mine = load.ours(host)
        wanted = state.crash_version(host, config.kernel, system.kver)
        is_loaded = mine is not None and (not kver or mine.kver == wanted)
        image = mine if is_loaded else state.read_manifest(host, wanted)
        if image is None:
            raise TinykdumpError(f"no image for {system.kver}",
                                 f"run tinykdump -b --kernel {system.kver}")  # fmt: skip
        state.verify(host, image)
        return Subject(
            system=system,
            system_image=system.content or host.read(system.image),
            image=image,
            crash_image=host.read(image.kernel),
            packed=host.read(state.image_path(image)),
            reserved=reservation.read(host).size if is_loaded else load.need_of(host, image).total,
        )


def rehearse(host: Host, what: Subject, tell: Tell) -> Rehearsal:
    """Crash a guest, check the dump and note the result; waits for another rehearsal to end.

    ``tell`` is called with each line of progress. Raises TinykdumpError or OSError if there can be
    no rehearsal, for example because QEMU is not installed; then nothing is noted.
    """
    program = _program(host, what.emulator)
    with _alone(host):
        began, number = time.time(), secrets.token_hex(8)
        kind = _filesystem(host, what.image)
        try:
            made = _prepare(host, what, kind, number)
            tell(
                f"rehearsing {what.system.kver}: a guest with {made.memory // MIB} MiB, "
                f"{what.reserved // MIB} MiB of them reserved, and a stick with {kind}"
            )
            seen = _crash(host, what, made, program, tell)
            done = _checked(host, what, kind, number, seen)
        finally:
            _clean(host)
        result = Rehearsal(time=local(began), kernel=what.system.kver, image=what.image.sha256,
                           passed=done.saved, result=done.says)  # fmt: skip
        text = json.dumps(asdict(result), default=datetime.isoformat)
        with state.lock(host):
            files.publish({host.path(NOTE): text.encode()})
        return result


def last(host: Host) -> Rehearsal | None:
    """The last rehearsal; None if there was none."""
    try:
        found = json.loads(host.text(NOTE) or "")
        return Rehearsal(
            time=datetime.fromisoformat(found["time"]).astimezone(), kernel=str(found["kernel"]),
            image=str(found["image"]), passed=found["passed"] is True, result=str(found["result"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def problem(done: Rehearsal | None, loaded: Manifest | None) -> str:
    """What the last rehearsal says against the image that is loaded; empty: nothing."""
    if done is None:
        return ""
    if not done.passed:
        return (f"the rehearsal of {done.kernel} {shown(done.time)} failed: {done.result} (read "
                f"{CONSOLE}, then run tinykdump test --rehearse again)")  # fmt: skip
    if loaded and loaded.sha256 != done.image:
        return (f"the last rehearsal was of {done.kernel} with another image than the loaded one "
                "(run tinykdump test --rehearse)")  # fmt: skip
    return ""


def _program(host: Host, emulator: Emulator) -> str:
    """The QEMU that is installed. Raises TinykdumpError if none is."""
    for name in emulator.programs:
        if is_installed(name):
            return name
    hint = distribution.install(host, emulator.packages)
    raise TinykdumpError(f"{emulator.programs[0]} is not installed", hint)


@contextmanager
def _alone(host: Host) -> Iterator[None]:
    """Let one rehearsal at a time run; builds go on meanwhile."""
    files.private(host.path(PLACE))
    with host.path(state.RUNTIME / "rehearsal-lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _clean(host)
        host.path(CONSOLE).write_bytes(b"")
        yield


def _clean(host: Host) -> None:
    for path in host.children(PLACE):
        if path == CONSOLE:
            continue
        if host.path(path).is_dir():
            files.delete(host.path(path))
        else:
            host.path(path).unlink()


def _filesystem(host: Host, image: Manifest) -> str:
    """The type of the stick that is plugged in, or one that the image mounts.

    Raises TinykdumpError if there is no program to make one.
    """
    plugged = [each.filesystem for each in stick.find(host, image.target) if each.is_usb]
    tag, _, value = image.target.partition("=")
    label = set(value) if tag == "LABEL" else set()
    kinds = [kind for kind in (*plugged, *image.filesystems)
             if kind in MADE and label.isdisjoint(FILESYSTEMS[kind].not_in_labels)]  # fmt: skip
    for kind in kinds:
        if is_installed(FILESYSTEMS[kind].make[0]):
            return kind
    known = FILESYSTEMS[kinds[0] if kinds else MADE[0]]
    raise TinykdumpError(f"{known.make[0]} is not installed",
                         distribution.install(host, known.package))  # fmt: skip


def _prepare(host: Host, what: Subject, kind: str, number: str) -> Guest:
    """Write the files of the guest. Raises TinykdumpError or OSError."""
    image, place = what.image, host.path(PLACE)
    planned = entries.plan(_entries(host, what, number))
    with archive.staged(planned, place) as top:
        packed = archive.pack(planned, top, archive.compressor(what.system.config))
    made = Guest(
        kernel=place / "kernel", initrd=place / "initrd", stick=place / "stick",
        console=host.path(CONSOLE), controller=guest.controller(image.modules),
        reserved=what.reserved,
    )  # fmt: skip
    made.kernel.write_bytes(what.system_image)
    made.initrd.write_bytes(packed)
    _make_stick(made, kind, image.target)
    return made


def _entries(host: Host, what: Subject, number: str) -> Iterator[Entry]:
    """The image of the guest's system kernel, whose first process is src/crash/rehearse."""
    shell, kexec = programs.busybox(host), programs.program(host, "kexec", "kexec-tools")
    cmdline = guest.crash_cmdline(what.emulator, what.image.cmdline)
    yield entries.file("/bin/busybox", shell.data, mode=0o755)
    yield from (entries.link(f"/bin/{name}", "busybox") for name in _APPLETS)
    yield entries.file("/bin/kexec", kexec.data, mode=0o755)
    yield from libraries(host, [kexec])
    yield from map(entries.directory, ("/dev", "/proc", "/sys"))
    yield entries.file("/init", programs.crash_side("rehearse"), mode=0o755)
    yield entries.file("/kernel", what.crash_image)
    yield entries.file("/image", what.packed)
    yield entries.file("/cmdline", cmdline.encode())
    yield entries.file("/id", number.encode())


def _make_stick(made: Guest, kind: str, target: str) -> None:
    """A raw disk with the file system that the image looks for; a copy of all memory fits on it."""
    with made.stick.open("wb") as disk:
        disk.truncate(made.memory + 128 * MIB)
    tag, _, value = target.partition("=")
    words = command(FILESYSTEMS[kind].make, made.stick, value if tag == "LABEL" else "REHEARSAL")
    if tag == "UUID":
        if kind not in _UUID:
            raise TinykdumpError(f"no {kind} with a given UUID can be made for a rehearsal",
                                 "set target = LABEL=... in [dump]")  # fmt: skip
        value = value.replace("-", "") if kind == "vfat" else value
        words = (words[0], _UUID[kind], value, *words[1:])
    run(words, hint="check that /var has room")


def _crash(host: Host, what: Subject, made: Guest, program: str, tell: Tell) -> Outcome:
    """Run the guest to its end; with KVM if that works here. Raises TinykdumpError or OSError."""
    errors = host.path(PLACE / "qemu.log")
    if os.access(_KVM, os.R_OK | os.W_OK):
        words = guest.command(program, what.emulator, made, kvm=True)
        if seen := _watch(words, made, errors, tell, patience=_KVM_SECONDS):
            return seen
        tell("KVM does not work here: QEMU emulates the guest, which takes minutes")
    words = guest.command(program, what.emulator, made, kvm=False)
    if seen := _watch(words, made, errors, tell, patience=_SILENCE):
        return seen
    said = errors.read_text(errors="replace").strip().splitlines()
    why = said[-1] if said else "the kernel does not start in the guest"
    raise TinykdumpError(f"{program} runs no guest: {why}", f"see {CONSOLE}")


def _watch(
    words: Sequence[str], made: Guest, errors: Path, tell: Tell, *, patience: float
) -> Outcome | None:
    """Run the guest until it ends or is silent; None: it was for ``patience`` seconds at first."""
    made.console.write_bytes(b"")
    said = 0
    with started(words, errors) as runs:
        began = since = time.monotonic()
        size = 0
        while True:
            running = runs()  # asked before the console is read, which is then all of it
            console = made.console.read_text(errors="replace")
            for line in guest.lines(console[: console.rfind("\n") + 1])[said:]:
                tell(line)
                said += 1
            if len(console) != size:
                since, size = time.monotonic(), len(console)
            silent = time.monotonic() - since
            if not guest.has_started(console) and (not running or silent > patience):
                return None
            hangs = silent > _SILENCE or time.monotonic() - began > _LONGEST
            if not running or guest.has_ended(console) or hangs:
                return guest.outcome(console, made.reserved, hangs=hangs)
            time.sleep(0.2)


def _checked(host: Host, what: Subject, kind: str, number: str, seen: Outcome) -> Outcome:
    """Check the dump on the virtual stick, if the crash kernel says that there is one."""
    if not seen.saved:
        return seen
    with ExitStack() as stack:
        try:
            place = stack.enter_context(
                mounts.mounted(host, PLACE / "stick", kind, below=state.RUNTIME, read_only=True)
            )
        except TinykdumpError as error:
            return Outcome(False, f"saved, but not checked: {error.message}")
        try:
            wanted = Wanted(number, kver=what.system.kver, key=what.image.key)
            checked = check(host, place, wanted, host.path(PLACE / "restored"))
            return Outcome(True, f"saved; {checked}")
        except TinykdumpError as error:
            return Outcome(False, f"saved, but {error.message}")
