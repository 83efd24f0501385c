# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading an image as the crash kernel, and taking it away again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tinykdump import memory, pack, reserve, state
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.manifest import Manifest
from tinykdump.memory import Need
from tinykdump.run import run

# What this program has loaded since boot: /run goes away with the kernel that holds it.
LOADED = state.RUNTIME / "loaded.json"


@dataclass(frozen=True)
class Loaded:
    """The crash kernel that this program loaded."""

    kver: str
    plan: str  # the manifest's, at that time
    cmdline: str


def ours(host: Host) -> Loaded | None:
    """What this program has loaded, as far as anything is loaded at all."""
    text = host.text(LOADED)
    if not text or not reserve.read(host).loaded:
        return None
    try:
        return Loaded(**json.loads(text))
    except (ValueError, TypeError):
        return None


def need_of(host: Host, image: Manifest) -> Need:
    """The memory that a built image needs. Raises TinykdumpError for a damaged kernel."""
    parts = memory.Parts(
        kernel=memory.init_size(host.read(image.kernel), image.kernel),
        packed=image.packed,
        unpacked=image.unpacked,
        drivers=image.drivers,
        memory=memory.total(host.text("/proc/meminfo") or ""),
    )
    return memory.need(parts, image.margin)


def load(host: Host, image: Manifest, *, takeover: bool) -> reserve.Reservation:
    """Make the reservation fit ``image`` and load it; the reservation then.

    What was loaded before is put back when this fails. Raises TinykdumpError, also when
    something else's crash kernel is loaded and ``takeover`` is not set.
    """
    now, before = reserve.read(host), ours(host)
    if now.loaded and before is None and not takeover:
        raise TinykdumpError(
            "a crash kernel that is not ours is loaded",
            "disable kdump.service, or set takeover = yes in /etc/default/tinykdump",
        )
    size = reserve.goal(now, need_of(host, image))
    try:
        if now.size != size:
            if now.loaded:
                _kexec("--unload")
            reserve.resize(host, size)
        _load(host, image)
    except TinykdumpError as error:
        _put_back(host, before, error)
        raise
    return reserve.read(host)


def _put_back(host: Host, before: Loaded | None, reason: TinykdumpError) -> None:
    """Load again what was loaded before; raises TinykdumpError when that fails as well."""
    try:
        image = state.read_manifest(host, before.kver) if before else None
        if image is not None and not reserve.read(host).loaded:
            _load(host, image)
    except TinykdumpError as error:
        raise TinykdumpError(
            f"{reason.message}; what was loaded before is gone, too: {error.message}", reason.hint
        ) from reason


def _load(host: Host, image: Manifest) -> None:
    """kexec(8); --kexec-syscall-auto takes the file system call, which Secure Boot wants."""
    _kexec(
        f"--initrd={host.path(state.image_path(image.kver))}",
        f"--append={image.cmdline}",
        str(host.path(image.kernel)),
    )
    if not reserve.read(host).loaded:
        raise TinykdumpError("kexec loaded no crash kernel", "see dmesg")
    text = json.dumps(asdict(Loaded(image.kver, image.plan, image.cmdline)))
    pack.publish({host.path(LOADED): text.encode()})


def _kexec(*words: str) -> None:
    run(
        ["kexec", "--load-panic", "--kexec-syscall-auto", *words],
        hint="see dmesg; with Secure Boot the kernel must be signed",
    )


def unload(host: Host) -> bool:
    """Take away our crash kernel; whether there was one. Somebody else's is left alone.

    On a kernel that can grow its reservation, the memory goes back to the system.
    """
    now = reserve.read(host)
    mine = ours(host)
    if now.loaded and mine is None:
        raise TinykdumpError(
            "the crash kernel that is loaded is not ours", "unload it with what loaded it"
        )
    if mine:
        _kexec("--unload")
    if now.maximum and now.size:
        reserve.resize(host, 0)
    Path(host.path(LOADED)).unlink(missing_ok=True)
    return mine is not None
