# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things stand on the host: kernels, their images, and the lock."""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinykdump import manifest
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.manifest import Manifest

STATE = Path("/var/lib/tinykdump")
RUNTIME = Path("/run/tinykdump")

_KVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")


def folder(kver: str) -> Path:
    """The folder of a kernel's image. Raises TinykdumpError for what is no kernel version."""
    if not _KVER.fullmatch(kver) or ".." in kver or kver == "keys":
        raise TinykdumpError(f"{kver!r} is not a kernel version", "name one of /lib/modules")
    return STATE / kver


def image_path(kver: str) -> Path:
    """The image of a kernel."""
    return folder(kver) / "initramfs.img"


@contextmanager
def lock(host: Host) -> Iterator[None]:
    """One tinykdump at a time builds or loads; the next one waits."""
    directory = host.path(RUNTIME)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (directory / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def images(host: Host) -> tuple[str, ...]:
    """The versions of the kernels that have an image."""
    found = (path.name for path in host.children(STATE))
    return tuple(name for name in found if host.exists(STATE / name / "manifest.json"))


def read_manifest(host: Host, kver: str) -> Manifest | None:
    """The manifest of a kernel's image, or None when there is no image."""
    name = folder(kver) / "manifest.json"
    text = host.text(name)
    if text is None or not host.exists(image_path(kver)):
        return None
    return manifest.parse(text, str(name))


def running_kernel(host: Host) -> str:
    """The version of the running kernel, as uname -r says it."""
    return host.text("/proc/sys/kernel/osrelease") or ""


def find_kernel(host: Host, kver: str, given: str = "") -> Path:
    """The kernel image of that version: as given, or where distributions put it.

    The copy beside the modules comes first: /boot may be in any layout, or not mounted.
    Raises TinykdumpError when there is none.
    """
    candidates = (
        f"/lib/modules/{kver}/vmlinuz", f"/usr/lib/modules/{kver}/vmlinuz", given,
        f"/boot/vmlinuz-{kver}",
    )  # fmt: skip
    for candidate in candidates:
        if candidate and host.exists(candidate):
            return Path(candidate)
    raise TinykdumpError(
        f"no kernel image of {kver}", "install that kernel, or run kernel-install add KVER IMAGE"
    )


def kernel_config(host: Host, kver: str) -> str:
    """The .config of a kernel as its package installs it; empty where it does not."""
    places = (f"/lib/modules/{kver}/config", f"/boot/config-{kver}")
    return next((text for place in places if (text := host.text(place))), "")
