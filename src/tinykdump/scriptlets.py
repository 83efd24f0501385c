# SPDX-License-Identifier: GPL-2.0-or-later
"""The entry point of the package's scriptlets.

``install`` after an installation or an upgrade, ``refresh`` after an update of a package whose
files are in the images, ``erase`` before tinykdump goes. Where kernels do not call kernel-install,
``kernels-added`` after some came, with the names of their files on standard input, and
``kernels-removed`` after some went. Every error is printed, and the exit status is always 0, so
that it does not fail the transaction.
"""

import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tinykdump import (
    actions,
    backup,
    files,
    kdump_service,
    kernel_install,
    keys,
    load,
    notice,
    reservation,
    state,
    units,
)
from tinykdump.config import INSTALLED, Config
from tinykdump.config_files import load_config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.memory import MIB
from tinykdump.report import interruptible, line, say

SERVICE = "tinykdump.service"
# What writes to the directories that erase() removes, and runs for minutes.
_WRITERS = ("tinykdump-rehearse@*.service", "tinykdump-harvest.service")
# What packages of kernels have beside the modules.
_VMLINUZ = re.compile(r"(?:/usr)?/lib/modules/([^/]+)/vmlinuz")


def install(host: Host) -> None:
    """Arm the running kernel with the code that is now in place. Raises TinykdumpError.

    If tinykdump.service is disabled, as on a distribution whose presets do not name it, only what
    is loaded already is loaded again.
    """
    if not host.live:
        say("not the running system: tinykdump.service arms it at its next boot")
        return
    started = time.monotonic()
    config = load_config(host, {})
    with state.lock(host):
        rebuild(host, config)
        enabled = units.is_enabled(host, SERVICE)
        if not enabled and load.ours(host) is None:
            say(f"not armed: {SERVICE} is disabled (run systemctl enable --now {SERVICE})")
            return
        arm(host, config, started, always=enabled)


def refresh(host: Host) -> None:
    """Rebuild the images that have become stale, and load what is new. Raises TinykdumpError."""
    started = time.monotonic()
    config = load_config(host, {})
    with state.lock(host):
        rebuilt = rebuild(host, config)
        if rebuilt and host.live:
            arm(host, config, started, always=False)


def crash_kernel(host: Host) -> None:
    """Arm with the small crash kernel, which is in place now, if the configuration wants it.

    Raises TinykdumpError.
    """
    if load_config(host, {}).kernel != INSTALLED:
        install(host)


def rebuild(host: Host, config: Config) -> bool:
    """Rebuild stale images; returns whether one was rebuilt. If a build fails, the image stays.

    Those of kernels that are not installed are removed first.
    """
    actions.prune(host)
    rebuilt = False
    for kver in _crashing(host, config):
        try:
            image, built = actions.build_image(host, config, kver)
        except (TinykdumpError, OSError) as error:
            say(f"cannot rebuild the image of {kver}, keeping the existing one: {line(error)}")
            continue
        if built:
            say(f"rebuilt the crash image of {image.kver}: {image.packed} bytes")
            rebuilt = True
    return rebuilt


def _crashing(host: Host, config: Config) -> tuple[str, ...]:
    """A kernel for each image that may have become stale; the crash kernel may be one for all."""
    there = state.images(host)
    if config.kernel != INSTALLED:
        return (host.running_kernel(),) if there else ()
    apart = {image.kver for image in state.noted(host) if image.apart}
    return tuple(kver for kver in there if kver not in apart)


def arm(host: Host, config: Config, started: float, *, always: bool) -> None:
    """Load the image of the loaded kernel, otherwise of the running one. Raises TinykdumpError.

    Without ``always``, do so only if tinykdump's crash kernel is loaded: the user may have unloaded
    it. ``started`` is when the scriptlet began; the message gives the time that it took.
    """
    mine = load.ours(host)
    if mine is None and not always:
        return
    kver = mine.kver if mine and not mine.apart else host.running_kernel()
    image, held = actions.load_image(host, config, kver)
    say(
        f"armed with {image.kver}; {held.size // MIB} MiB of memory are reserved "
        f"({time.monotonic() - started:.1f} s)"
    )
    actions.check_stick(host, config, image)


def kernels_added(_: Host) -> None:
    """Do what the plugin does, for each kernel with a file on standard input."""
    found = (_VMLINUZ.fullmatch(name.strip()) for name in sys.stdin)
    for kver in sorted({match[1] for match in found if match}):
        kernel_install.main(["add", kver, "", f"/lib/modules/{kver}/vmlinuz"])


def kernels_removed(host: Host) -> None:
    """Do what the plugin does, for each image whose kernel is not installed any more."""
    for kver in state.orphans(host):
        kernel_install.main(["remove", kver])


def erase(host: Host) -> None:
    """Remove everything except keys and dumps. Raises TinykdumpError."""
    try:
        if host.live:
            try:
                units.stop(host, *_WRITERS)
            except TinykdumpError as error:
                say(f"erase: {line(error)}")
            with state.lock(host):
                disarm(host)
    finally:
        ours = [*host.children(state.IMAGES), *host.children(state.STATE)]
        if host.live:  # in a chroot, /run can be the machine's own
            ours += [notice.MOTD, state.RUNTIME]
        for path in ours:
            if path not in (keys.MACHINE_KEYS, backup.NOTE, state.IMAGES):
                _delete(host.path(path))
        with suppress(OSError):  # it is not empty, and why was said
            host.path(state.IMAGES).rmdir()
        if host.exists(keys.MACHINE_KEYS):
            say(f"the key that decrypts your dumps stays in {keys.MACHINE_KEYS}")


def _delete(path: Path) -> None:
    """Delete a file or a directory; print an error instead of raising it."""
    try:
        if path.is_dir():
            files.delete(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        say(f"erase: {line(error)}")


def disarm(host: Host) -> None:
    """Unload tinykdump's crash kernel and return its memory, also that from crashkernel=.

    The latter stays if the distribution's kdump service needs it at the next start. Raises
    TinykdumpError if another program's crash kernel is loaded.
    """
    size = reservation.read(host).size
    if not load.unload(host):
        return
    if user := kdump_service.enabled(host):
        say(f"disarmed; the reservation stays for {user}")
        return
    held = reservation.read(host)
    if held.size:
        reservation.resize(host, 0)
    freed = size - reservation.read(host).size
    say(
        f"disarmed; {freed // MIB} MiB of memory were returned"
        + ("; crashkernel= reserves them again at the next boot" if not held.maximum else "")
    )


def _state(host: Host) -> str:
    """What the machine is after an installation that failed; an upgrade can leave it armed."""
    with suppress(TinykdumpError):
        if mine := load.ours(host):
            return f"still armed with the earlier image of {mine.kver}"
    return "not armed"


VERBS = {
    "install": install,
    "refresh": refresh,
    "crash-kernel": crash_kernel,
    "erase": erase,
    "kernels-added": kernels_added,
    "kernels-removed": kernels_removed,
}


# After these, people expect an armed machine.
_ARMING = ("install", "crash-kernel")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; always 0."""
    words = sys.argv[1:] if arguments is None else arguments
    if len(words) != 1 or words[0] not in VERBS:
        say(f"the argument must be one of {', '.join(VERBS)}")
        return 0
    host = Host.given(os.environ)
    try:
        VERBS[words[0]](host)
    except (TinykdumpError, OSError) as error:
        say(f"{_state(host) if words[0] in _ARMING else words[0]}: {line(error)}")
    except KeyboardInterrupt:
        say(f"{words[0]}: interrupted (run tinykdump -l)")
    return 0


if __name__ == "__main__":
    interruptible()
    sys.exit(main())
