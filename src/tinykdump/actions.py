# SPDX-License-Identifier: GPL-2.0-or-later
"""Actions that the command line, the plugin and the scriptlets share: build, load, remove."""

from collections.abc import Callable
from dataclasses import replace

from tinykdump import dumps, files, hardware, load, pstore, reservation, state, stick
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import is_mounted_by
from tinykdump.host import Host
from tinykdump.image import build
from tinykdump.image.drivers import Seen
from tinykdump.image.manifest import Manifest
from tinykdump.memory import Need
from tinykdump.report import line, say


def draft(
    host: Host, config: Config, kver: str, kernel: str = "", *, make_key: bool = True
) -> build.Draft:
    """Plan the image for crashes of a kernel, and for the sticks that are plugged in.

    See build.draft.
    """
    found = state.crash_kernel(host, config.kernel, kver, kernel)
    known = state.known_modules(host, found.kver)
    seen = _seen(host, config)
    return build.draft(host, config, found, seen, make_key=make_key, known=known)


def need(host: Host, config: Config, kver: str) -> tuple[Manifest, Need, bool]:
    """The image for crashes of a kernel, the memory that it needs, and whether it is there.

    Without an image, plans one. Writes nothing. Raises TinykdumpError.
    """
    image = state.read_manifest(host, state.crash_version(host, config.kernel, kver))
    if image is not None:
        return image, load.need_of(host, image), True
    planned = draft(host, config, kver, make_key=False)
    sketch = build.sketch(planned)
    return sketch, load.need_of(host, sketch, planned.kernel.content), False


def fits(host: Host, config: Config, image: Manifest) -> bool:
    """Whether an image was made for this configuration and this machine's devices.

    A stick that was there when it was built may be away, and another one with a file system that it
    can mount be there. If its kernel is not installed any more, nothing can replace it. Where this
    is not the machine itself, nothing is known of devices. Raises TinykdumpError.
    """
    if not host.live:
        return True
    kver = host.running_kernel() if image.apart else image.kver
    try:
        found = state.crash_kernel(host, config.kernel, kver)
    except TinykdumpError:
        return True
    new = {kind for kind in _plugged(host, config) if not is_mounted_by(kind, image.filesystems)}
    seen = replace(_seen(host, config), filesystems=frozenset({*image.filesystems, *new}))
    known = state.known_modules(host, found.kver)
    planned = build.draft(host, config, found, seen, make_key=False, known=known)
    return build.fits(planned, image)


def _seen(host: Host, config: Config) -> Seen:
    """What the sticks that are plugged in and the existing images say.

    Without a stick, the types of file system that the existing images mount: the stick that was
    there when they were built may come back after a crash. So may a card reader or a watchdog that
    is not there now, or that udev has not found yet.
    """
    plugged, images = _plugged(host, config), tuple(state.noted(host))
    return Seen(
        frozenset(plugged or {kind for image in images for kind in image.filesystems}),
        frozenset(name for image in images for name in image.modules
                  if hardware.drives_reader(name)),
        tuple(dict.fromkeys(name for image in images for name in image.watchdogs)),
    )  # fmt: skip


def _plugged(host: Host, config: Config) -> set[str]:
    """The types of file system on the sticks that are plugged in."""
    try:
        found = stick.find(host, str(config.target))
    except TinykdumpError:  # blkid is not installed
        return set()
    return {each.filesystem for each in found if each.is_usb}


def build_image(
    host: Host, config: Config, kver: str, *, kernel: str = "", force: bool = False
) -> tuple[Manifest, bool]:
    """Return the up-to-date image for crashes of a kernel, and whether it had to be built.

    An image is up to date if a new build would contain the same bytes. Raises TinykdumpError; the
    old image then stays.
    """
    if host.live and config.efi_log and config.efi_pstore:
        _turn_on_efi(host)
    planned = draft(host, config, kver, kernel)
    old = None if force else _old(host, planned.kernel.kver)
    if old is not None and build.is_current(planned, old):
        return old, False
    made, packed = build.build(host, planned, state.RUNTIME)
    state.publish(host, made, packed, planned.kernel, planned.noted)
    load.sweep(host)
    return made, True


def _turn_on_efi(host: Host) -> None:
    """Before the image is planned: the crash kernel gets what the running kernel uses."""
    try:
        pstore.turn_on_efi(host)
    except TinykdumpError as error:
        say(str(error))


def _old(host: Host, kver: str) -> Manifest | None:
    try:
        return state.read_manifest(host, kver)
    except TinykdumpError:  # damaged, so it has to be rebuilt
        return None


def best_image(host: Host, config: Config, kver: str) -> Manifest:
    """Return the up-to-date image for crashes of a kernel, or the existing one if that fails.

    A message reports a failed build. Raises TinykdumpError or OSError if there is no image, or if
    the existing one does not encrypt although the configuration asks for it.
    """
    try:
        return build_image(host, config, kver)[0]
    except (TinykdumpError, OSError) as error:
        old = _old(host, _kept_version(host, config, kver))
        if old is None or (config.encrypt and not old.key):
            raise
        say(f"cannot rebuild the image of {old.kver}, using the existing one: {line(error)}")
        return old


def _kept_version(host: Host, config: Config, kver: str) -> str:
    """The version of the image to fall back on: that of the installed kernel, if all else fails."""
    try:
        return state.crash_version(host, config.kernel, kver)
    except TinykdumpError:
        return kver


def load_image(host: Host, config: Config, kver: str) -> tuple[Manifest, reservation.Reservation]:
    """Build if necessary, resize the reservation, load. Raises TinykdumpError or OSError."""
    image = best_image(host, config, kver)
    return image, load.load(host, image, takeover=config.takeover)


def check_stick(host: Host, config: Config, image: Manifest) -> None:
    """Print the problems of the stick that is plugged in, after ``image`` was loaded."""
    try:
        found = dumps.counted(host, stick.find(host, image.target), config.keep)
    except TinykdumpError as error:
        say(str(error))
        return
    dump = stick.expected_dump(host, config.level)
    for problem in stick.problems(found, image.target, image.filesystems, dump):
        say(str(problem))


def prune(host: Host) -> None:
    """Delete the images of kernels that are not installed any more, and say so.

    The loaded image stays until the reboot, as does that of the running kernel.
    """
    loaded = load.ours(host)
    kept = {host.running_kernel(), loaded.kver if loaded else ""}
    for name in state.orphans(host):
        if name in kept:
            continue
        try:
            files.delete(host.path(state.IMAGES / name))
        except OSError as error:
            say(f"cannot remove the image of {name}, which is not installed: {line(error)}")
        else:
            say(f"removed the crash image of {name}: that kernel is not installed")


def remove_kernel(host: Host, kver: str, read_config: Callable[[], Config]) -> str:
    """Delete a kernel's image. If it was loaded, load the running kernel's instead.

    In a chroot, nothing is loaded, although the machine's own notes can be there.
    Returns the version that was loaded in its place, or "". Raises TinykdumpError, also from
    ``read_config``; the image is deleted even then, and the loaded crash kernel stays loaded.
    Raises OSError when the image cannot be deleted.
    """
    directory = host.path(state.image_directory(kver))
    loaded, running = load.ours(host), host.running_kernel()
    try:
        # If the running kernel is removed, its loaded image keeps working until the reboot.
        if not host.live or loaded is None or loaded.kver != kver or running == kver:
            return ""
        load_image(host, read_config(), running)
        return running
    finally:
        files.delete(directory)
