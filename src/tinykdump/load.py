# SPDX-License-Identifier: GPL-2.0-or-later
"""Load an image as the crash kernel, and unload it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tinykdump import (
    files,
    hardware,
    kdump_service,
    kernels,
    memory,
    reservation,
    state,
)
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import manifest
from tinykdump.image.manifest import Manifest
from tinykdump.memory import Need
from tinykdump.reservation import Reservation
from tinykdump.run import run
from tinykdump.state import LOADED, LOADING

# The level of lockdown that holds is in brackets (security/lockdown/lockdown.c).
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
# How many more kernels may be loaded for a reboot (Documentation/admin-guide/sysctl/kernel.rst).
_LIMIT = Path("/proc/sys/kernel/kexec_load_limit_reboot")
_NO_LIMIT = "-1"
# What kexec(8) says if the kernel rejects a kernel, but not if the call was invalid
# (do_kexec_file_load() in kexec/kexec.c).
_REFUSED = "kexec_file_load failed: "
_UNTRUSTED = "see dmesg; Secure Boot and lockdown want a signed kernel, also in a unified image"


def ours(host: Host) -> Manifest | None:
    """The manifest of the image that tinykdump loaded, or None.

    The kernel does not record who loaded the crash kernel: if another program replaced it, the
    replacement counts as tinykdump's.
    """
    text = host.text(LOADING) or host.text(LOADED)
    if not text or not reservation.read(host).loaded:
        return None
    try:
        return manifest.parse(text, str(LOADED))
    except TinykdumpError:
        return None


def _settle(host: Host) -> None:
    """If an image is loaded, make the note for loading the note of the loaded image.

    Otherwise delete both notes: what another program loads later is not tinykdump's.
    """
    if not reservation.read(host).loaded:
        for note in (LOADING, LOADED):
            host.path(note).unlink(missing_ok=True)
    elif host.exists(LOADING):
        host.path(LOADING).replace(host.path(LOADED))


def need_of(host: Host, image: Manifest, content: bytes = b"") -> Need:
    """The memory that an image needs. Raises TinykdumpError for a damaged kernel.

    ``content`` is its kernel image, if that is not yet where the manifest says.
    """
    log = memory.log_buffer(
        host.text("/proc/cmdline") or "",
        kernels.config(host, host.running_kernel()),
        hardware.possible_cpus(host),
    )
    return memory.of_image(
        image,
        content or host.read(image.kernel),
        kernels.config(host, image.kver, image.kernel),
        machine=memory.total(host.text("/proc/meminfo") or ""),
        log=log,
        screen=hardware.screen_bytes(host) if image.draws else 0,
    )


def load(host: Host, image: Manifest, *, takeover: bool) -> Reservation:
    """Resize the reservation for ``image`` and load it; returns the new reservation.

    If this fails, restores the reservation and the previous crash kernel, and says whether the
    machine is still armed. Raises TinykdumpError, also if ``takeover`` is not set and another
    program's crash kernel is loaded or will be at boot; OSError if there is no space for the note
    of the loaded image.
    """
    _settle(host)
    now, before = reservation.read(host), ours(host)
    if not takeover and (unit := kdump_service.enabled(host)):
        raise kdump_service.refusal(unit)
    if now.loaded and before is None and not takeover:
        raise TinykdumpError(
            "another program's crash kernel is loaded",
            "unload it, for example with systemctl stop kdump, and run tinykdump -l; "
            "or set takeover = yes in /etc/default/tinykdump",
        )
    state.verify(host, image)
    need = need_of(host, image)
    size = reservation.goal(now, need)
    if before is not None:
        _check_trust(host, image)
    with _put_back(host, now, before), _note_of(host, image):
        if size < now.size and not now.maximum:
            _try(host, image)
        if size != now.size:
            _resize(host, size, need)
        _load(host, image)
    sweep(host)
    return reservation.read(host)


def sweep(host: Host) -> None:
    """Delete images that are neither loaded nor named by a manifest."""
    images = [image for image in (ours(host), *state.noted(host)) if image]
    kept = {path for image in images for path in (state.image_path(image), Path(image.kernel))}
    for path in state.stored(host):
        if path not in kept:
            with suppress(OSError):  # a leftover only wastes space
                host.path(path).unlink()


def _check_trust(host: Host, image: Manifest) -> None:
    """Raise TinykdumpError if a kernel that is locked down does not trust the image's kernel.

    kexec_file_load(2) frees the loaded crash kernel before it looks at the next one, which then
    cannot be loaded again: it may have been loaded before the lockdown. So ask for a kernel to
    reboot into, with an initramfs that is no file. The kernel reads that after it has checked the
    signature (kernel/kexec_file.c), so that nothing is loaded or unloaded. Of a kernel that is
    trusted, kexec(8) then says that the system call is not available.
    """
    level = host.text(_LOCKDOWN) or "[none]"
    if "[none]" in level or (host.text(_LIMIT) or _NO_LIMIT).strip() != _NO_LIMIT:
        return
    asked = ["kexec", "--load", "--kexec-file-syscall", "--initrd=/dev/null"]
    done = run([*asked, host.path(image.kernel)], check=False)
    if done.last_line.startswith(_REFUSED):
        raise TinykdumpError(
            f"kexec failed: {done.last_line}; the crash kernel that is loaded stays", _UNTRUSTED
        )


def _try(host: Host, image: Manifest) -> None:
    """Load and unload it: memory returned from crashkernel= is lost until reboot.

    Raises TinykdumpError when it does not load.
    """
    _load(host, image)
    _unload(host)


def _unload(host: Host) -> None:
    if not reservation.read(host).loaded:
        return
    _kexec("--unload")
    if reservation.read(host).loaded:
        raise TinykdumpError("kexec did not unload the crash kernel", "see dmesg")


def _resize(host: Host, size: int, need: Need) -> None:
    """Change the reservation while no crash kernel is loaded. Raises TinykdumpError.

    If it cannot grow, the need without its margin is enough.
    """
    try:
        reservation.resize(host, size)
    except TinykdumpError:
        if reservation.read(host).size < need.minimum:
            raise


@contextmanager
def _put_back(host: Host, now: Reservation, before: Manifest | None) -> Iterator[None]:
    """Restore the previous state if the block fails or is interrupted.

    Raises TinykdumpError that also says so if the machine is not armed any more, or if the crash
    kernel that was loaded had to be loaded again.
    """
    try:
        yield
    except BaseException as error:
        with _undisturbed():
            stayed = reservation.read(host).loaded
            gone = "" if stayed else _restore(host, now, before)
        what, hint = str(error) or "interrupted", "run tinykdump -l"
        if isinstance(error, TinykdumpError):
            what, hint = error.message, error.hint
        if gone:
            lost = "the machine is not armed any more: " * now.loaded
            raise TinykdumpError(
                f"{what}; {lost}the previous state could not be restored: {gone}", hint
            ) from error
        if stayed or before is None or not isinstance(error, TinykdumpError):
            raise
        raise TinykdumpError(f"{what}; {before.kver} is loaded again", hint) from error


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Delay Ctrl-C and other signals until the end of the block.

    Programs that the block starts inherit the blocked signals. Python runs its handlers whichever
    thread receives a signal, so they are replaced, too.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    came: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    handlers = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in numbers
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for late in came[:1]:
            signal.raise_signal(late)


def _restore(host: Host, now: Reservation, before: Manifest | None) -> str:
    """Restore the reservation and the crash kernel; returns why that failed, or ""."""
    try:
        if now.maximum and reservation.read(host).size != now.size:
            reservation.resize(host, now.size)
        if before is not None:
            state.verify(host, before)
            with _note_of(host, before):
                _load(host, before)
    except TinykdumpError as error:
        return error.message  # the first failure has the hint
    except OSError as error:
        return str(error)
    return "another program had loaded it" if now.loaded and before is None else ""


def _load(host: Host, image: Manifest) -> None:
    _kexec(*_files(host, image))
    if not reservation.read(host).loaded:
        raise TinykdumpError("kexec loaded no crash kernel", "see dmesg")


@contextmanager
def _note_of(host: Host, image: Manifest) -> Iterator[None]:
    """Write the note of the image that the block loads, in case tinykdump is killed in between.

    The previous crash kernel is unloaded first. kexec_file_load(2) would replace it, but then a
    killed tinykdump could not tell which of the two is loaded. The note is written before that,
    because the disk can be full, and renamed after it.
    """
    written = host.path(f"{LOADING}.new")
    files.publish({written: image.to_json().encode()})
    _unload(host)
    written.replace(host.path(LOADING))
    try:
        yield
    finally:
        _settle(host)


def _files(host: Host, image: Manifest) -> tuple[str, ...]:
    return (
        f"--initrd={host.path(state.image_path(image))}",
        f"--append={image.cmdline}",
        str(host.path(image.kernel)),
    )


def _kexec(*words: str) -> None:
    """kexec(8); --kexec-syscall-auto uses kexec_file_load(2), which Secure Boot requires."""
    run(
        ["kexec", "--load-panic", "--kexec-syscall-auto", *words],
        hint=_UNTRUSTED,
    )


def unload(host: Host) -> bool:
    """Unload tinykdump's crash kernel; returns whether there was one.

    If the kernel can grow its reservation, return the memory. Raises TinykdumpError if another
    program's crash kernel is loaded.
    """
    _settle(host)
    now = reservation.read(host)
    mine = ours(host)
    if now.loaded and mine is None:
        raise TinykdumpError(
            "the loaded crash kernel is not tinykdump's",
            "unload it with the program that loaded it",
        )
    _unload(host)
    _settle(host)
    if now.maximum and now.size:
        reservation.resize(host, 0)
    return mine is not None
