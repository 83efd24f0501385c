# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading an image as the crash kernel, and taking it away again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinykdump import cmdline, hardware, manifest, memory, pack, reserve, state
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.manifest import Manifest
from tinykdump.memory import Need
from tinykdump.reserve import Reservation
from tinykdump.run import run

# The manifest of what this program has loaded since boot: /run goes away with the kernel that
# holds it.
LOADED = state.RUNTIME / "loaded.json"


def ours(host: Host) -> Manifest | None:
    """What this program has loaded, as far as anything is loaded at all.

    The kernel does not say who has loaded it: what was put in its place behind our back is
    taken for ours.
    """
    text = host.text(LOADED)
    if not text or not reserve.read(host).loaded:
        return None
    try:
        return manifest.parse(text, str(LOADED))
    except TinykdumpError:
        return None


def need_of(host: Host, image: Manifest) -> Need:
    """The memory that a built image needs. Raises TinykdumpError for a damaged kernel."""
    log = memory.log_buffer(
        host.text("/proc/cmdline") or "",
        state.kernel_config(host, state.running_kernel(host)),
        hardware.possible_cpus(host),
    )
    parts = memory.Parts(
        kernel=memory.init_size(host.read(image.kernel), image.kernel),
        packed=image.packed,
        unpacked=image.unpacked,
        drivers=image.drivers,
        memory=memory.total(host.text("/proc/meminfo") or ""),
        log=log,
        bounce=cmdline.BOUNCE_BUFFERS if cmdline.encrypts_memory(image.cmdline) else 0,
    )
    return memory.need(parts, image.margin)


def load(host: Host, image: Manifest, *, takeover: bool) -> Reservation:
    """Make the reservation fit ``image`` and load it; the reservation then.

    When this fails, the reservation and what was loaded before are put back. Raises
    TinykdumpError, also when something else's crash kernel is loaded and ``takeover`` is not
    set; OSError when there is no room to note what is loaded.
    """
    now, before = reserve.read(host), ours(host)
    if now.loaded and before is None and not takeover:
        raise TinykdumpError(
            "a crash kernel that is not ours is loaded",
            "disable kdump.service, or set takeover = yes in /etc/default/tinykdump",
        )
    need = need_of(host, image)
    size = reserve.goal(now, need)
    with _put_back(host, now, before):
        if size < now.size and not now.maximum:
            _prove(host, image)
        if size != now.size:
            _resize(host, size, need)
        _load(host, image, state.image_path(image.kver))
    return reserve.read(host)


def _prove(host: Host, image: Manifest) -> None:
    """Load and unload it: what is given back of crashkernel= can not be had again.

    Raises TinykdumpError when it does not load. What was loaded before is not, after either.
    """
    try:
        _kexec(*_files(host, image, state.image_path(image.kver)))
    finally:
        _unload(host)


def _unload(host: Host) -> None:
    if reserve.read(host).loaded:
        _kexec("--unload")


def _resize(host: Host, size: int, need: Need) -> None:
    """Unload whatever is loaded and change the reservation. Raises TinykdumpError.

    Without its margin the need is met as well, where there is no way to get more.
    """
    _unload(host)
    try:
        reserve.resize(host, size)
    except TinykdumpError:
        if reserve.read(host).size < need.minimum:
            raise


@contextmanager
def _put_back(host: Host, now: Reservation, before: Manifest | None) -> Iterator[None]:
    """Leave the machine as it was when this fails or is interrupted.

    Raises TinykdumpError that also says so when that is not possible.
    """
    try:
        yield
    except BaseException as error:
        gone = _restore(host, now, before)
        if gone and isinstance(error, TinykdumpError):
            raise TinykdumpError(
                f"{error.message}; what was there before is gone, too: {gone}", error.hint
            ) from error
        raise


def _restore(host: Host, now: Reservation, before: Manifest | None) -> str:
    """The reservation and the crash kernel that were there; why not, or nothing."""
    if reserve.read(host).loaded:
        return ""
    try:
        if now.maximum and reserve.read(host).size != now.size:
            reserve.resize(host, now.size)
        if before is not None:
            _load(host, before, _loaded_image(before.kver))
    except (TinykdumpError, OSError) as error:
        return str(error)
    return "something else had loaded it" if now.loaded and before is None else ""


def _loaded_image(kver: str) -> Path:
    """Another name of the image that was loaded, for when a newer one has taken its place."""
    return state.folder(kver) / "loaded.img"


def _load(host: Host, image: Manifest, file: Path) -> None:
    with _noted(host, image, file):
        _kexec(*_files(host, image, file))
        if not reserve.read(host).loaded:
            raise TinykdumpError("kexec loaded no crash kernel", "see dmesg")


@contextmanager
def _noted(host: Host, image: Manifest, file: Path) -> Iterator[None]:
    """Note what is loaded when it is. What takes room is written before: it may not be there."""
    link = host.path(f"{_loaded_image(image.kver)}.new")
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(host.path(file))
        with pack.publishing({host.path(LOADED): image.to_json().encode()}):
            yield
        link.replace(host.path(_loaded_image(image.kver)))
    finally:
        link.unlink(missing_ok=True)  # rename(2) leaves it when both are one file


def _files(host: Host, image: Manifest, file: Path) -> tuple[str, ...]:
    return (
        f"--initrd={host.path(file)}",
        f"--append={image.cmdline}",
        str(host.path(image.kernel)),
    )


def _kexec(*words: str) -> None:
    """kexec(8); --kexec-syscall-auto takes the file system call, which Secure Boot wants."""
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
    host.path(LOADED).unlink(missing_ok=True)
    if now.maximum and now.size:
        reserve.resize(host, 0)
    return mine is not None
