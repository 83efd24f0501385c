# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things stand on the host: kernels, their images, and the lock."""

import fcntl
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tinykdump import files, kernelimage
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import manifest
from tinykdump.image.manifest import Manifest

STATE = Path("/var/lib/tinykdump")
RUNTIME = Path("/run/tinykdump")

_KVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")


def folder(kver: str) -> Path:
    """The folder of a kernel's image. Raises TinykdumpError for what is no kernel version."""
    if not _KVER.fullmatch(kver) or ".." in kver or kver == "keys":
        raise TinykdumpError(f"{kver!r} is not a kernel version", "name one of /lib/modules")
    return STATE / kver


def manifest_path(kver: str) -> Path:
    """The manifest of a kernel's image: the image that it names is the one that counts."""
    return folder(kver) / "manifest.json"


def image_path(image: Manifest) -> Path:
    """Where the image of a manifest is.

    The bytes are in the name, so that a new image stands beside the old one until the rename
    of the new manifest makes it count, and the one that is loaded can be loaded again.
    """
    if not image.sha256:  # loaded by a version that gave it this second name
        return folder(image.kver) / "loaded.img"
    return folder(image.kver) / f"initramfs-{image.sha256[:16]}.img"


def _kernel_name(content: bytes) -> str:
    return f"linux-{hashlib.sha256(content).hexdigest()[:16]}.img"


def verify(host: Host, image: Manifest) -> None:
    """Look whether an image is what its manifest says. Raises TinykdumpError when it is not."""
    path = image_path(image)
    if image.sha256 not in ("", hashlib.sha256(host.read(path)).hexdigest()):
        raise TinykdumpError(f"{path} is damaged", "rebuild the image with tinykdump -b")
    kernel = Path(image.kernel)
    if kernel.parent == path.parent and kernel.name != _kernel_name(host.read(kernel)):
        raise TinykdumpError(f"{kernel} is damaged", "rebuild the image with tinykdump -b")


def stored(host: Host) -> tuple[Path, ...]:
    """Every image that is there, of kernels, too, and those that no manifest names any more."""
    return tuple(
        path
        for place in host.children(STATE)
        if place.name != "keys"
        for path in host.children(place)
        if path.suffix == ".img"
    )


@contextmanager
def lock(host: Host) -> Iterator[None]:
    """One tinykdump at a time builds or loads; the next one waits."""
    files.private(host.path(RUNTIME))
    if host.exists(STATE):
        files.private(host.path(STATE))
    with host.path(RUNTIME / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def images(host: Host) -> tuple[str, ...]:
    """The versions of the kernels that have an image."""
    found = (path.name for path in host.children(STATE))
    return tuple(name for name in found if host.exists(STATE / name / "manifest.json"))


def read_manifest(host: Host, kver: str) -> Manifest | None:
    """The manifest of a kernel's image, or None when there is no image.

    Raises TinykdumpError when either is damaged. An image whose manifest cannot tell, of an
    older version, is as good as none.
    """
    image = _parsed(host, kver)
    if image is None or not image.sha256 or not host.exists(image_path(image)):
        return None
    verify(host, image)
    return image


def _parsed(host: Host, kver: str) -> Manifest | None:
    name = manifest_path(kver)
    text = host.text(name)
    if text is None:
        return None
    image = manifest.parse(text, str(name))
    if image.kver != kver:
        raise TinykdumpError(f"{name} is that of {image.kver}", "rebuild it with tinykdump -b")
    return image


def noted(host: Host, *kvers: str) -> Iterator[Manifest]:
    """The manifests that can be read, of these kernels or all: their images may not be there."""
    for kver in kvers or images(host):
        with suppress(TinykdumpError):
            if image := _parsed(host, kver):
                yield image


def running_kernel(host: Host) -> str:
    """The version of the running kernel, as uname -r says it."""
    return host.text("/proc/sys/kernel/osrelease") or ""


@dataclass(frozen=True)
class Kernel:
    """The kernel image that is loaded with an image of ours."""

    path: Path
    content: bytes = b""  # to be put there; empty: it is there


def find_kernel(host: Host, kver: str, given: str = "") -> Kernel:
    """The bzImage of that version: as given, where distributions put it, or as it was before.

    The copy beside the modules comes first: /boot may be in any layout, or not mounted. kexec
    takes no unified image: what is in one is to be stored beside our own image. Raises
    TinykdumpError when there is none.
    """
    why = f"no kernel image of {kver}"
    for place in _kernel_places(host, kver, given):
        if not place or not host.exists(place):
            continue
        content = host.read(place)
        inner = kernelimage.bzimage(content)
        if not inner:
            why = f"{place} is not a bzImage, and none is in it"
        elif kernelimage.version(inner) not in ("", kver):
            why = f"{place} is kernel {kernelimage.version(inner)}, not {kver}"
        elif inner is content:
            return Kernel(Path(place))
        else:
            return Kernel(folder(kver) / _kernel_name(inner), inner)
    raise TinykdumpError(why, "install that kernel, or run kernel-install add KVER IMAGE")


def _kernel_places(host: Host, kver: str, given: str) -> Iterator[str]:
    """Where a kernel can be, the best first; at a boot, when nothing is given, where it was last.

    On boot partitions kernel-install (90-loaderentry and 90-uki-copy) names directories and
    unified images by a token, which is the machine's ID if nothing else is chosen.
    """
    modules = f"/lib/modules/{kver}"
    yield from (f"{modules}/vmlinuz", f"/usr{modules}/vmlinuz", given)
    tokens = [host.text(name) for name in ("/etc/kernel/entry-token", "/etc/machine-id")]
    for boot in ("/boot", "/efi", "/boot/efi"):
        for token in filter(None, tokens):
            yield f"{boot}/{token}/{kver}/linux"
            yield f"{boot}/EFI/Linux/{token}-{kver}.efi"
            yield from (
                str(path)
                for path in host.children(f"{boot}/EFI/Linux")
                if path.name.startswith(f"{token}-{kver}+")  # tries left, of automatic assessment
            )
    yield from (f"{modules}/vmlinuz-virt.efi", f"/boot/vmlinuz-{kver}")
    yield from (image.kernel for image in noted(host, kver))


def kernel_config(host: Host, kver: str) -> str:
    """The .config of a kernel as its package installs it; empty where it does not."""
    places = (f"/lib/modules/{kver}/config", f"/boot/config-{kver}")
    return next((text for place in places if (text := host.text(place))), "")
