# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump's state on the host: the images of kernels, and the lock."""

import fcntl
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tinykdump import files, kernelimage, kernels
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import manifest, modinfo
from tinykdump.image.manifest import Manifest
from tinykdump.image.modinfo import ModInfo
from tinykdump.kernels import Kernel

STATE = Path("/var/lib/tinykdump")
IMAGES = STATE / "images"
RUNTIME = Path("/run/tinykdump")

# The manifest of the image that tinykdump loaded since boot; /run does not survive a reboot.
# While an image is being loaded, the note is LOADING: if tinykdump is killed then, the next run
# knows which image is loaded.
LOADED = RUNTIME / "loaded.json"
LOADING = RUNTIME / "loading.json"

_MANIFEST = "manifest.json"
# What modules said of themselves when the image was built (image/modinfo.py).
_MODULES = "modules.json"

_KVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")


def image_directory(kver: str) -> Path:
    """The directory of a kernel's image. Raises TinykdumpError if ``kver`` is no version."""
    if not _KVER.fullmatch(kver) or ".." in kver:
        raise TinykdumpError(
            f"{kver!r} is not a kernel version", "name a directory in /lib/modules"
        )
    return IMAGES / kver


def manifest_path(kver: str) -> Path:
    """The path of a kernel's manifest. Only the image that the manifest names is valid."""
    return image_directory(kver) / _MANIFEST


def image_path(image: Manifest) -> Path:
    """The path of a manifest's image.

    The checksum is part of the name. So the old image stays until the new manifest is in place, and
    the loaded image can be loaded again.
    """
    if not image.sha256:  # an old version of tinykdump loaded it under this name
        return image_directory(image.kver) / "loaded.img"
    return image_directory(image.kver) / f"initramfs-{image.sha256[:16]}.img"


def crash_kernel(host: Host, choice: str, kver: str, given: str = "") -> Kernel:
    """The kernel that starts after a crash of ``kver``; ``choice`` is the key of the configuration.

    See find_kernel for ``given``. Raises TinykdumpError.
    """
    found = kernels.apart(host, choice)
    if found is None:
        return find_kernel(host, kver, given)
    return kernels.find_apart(host, choice, found[1], beside=image_directory(found[0]))


def crash_version(host: Host, choice: str, kver: str) -> str:
    """The version of that kernel, by which its image is kept. Raises TinykdumpError."""
    found = kernels.apart(host, choice)
    return kver if found is None else found[0]


def find_kernel(host: Host, kver: str, given: str = "") -> Kernel:
    """Find a kernel. Its image is ``given``, in a usual place, or where the last build found it.

    Raises TinykdumpError if ``kver`` is not a kernel version, or if there is no such kernel.
    """
    beside = image_directory(kver)
    earlier = (image.kernel for image in noted(host, kver))
    return kernels.find(host, kver, given, beside=beside, earlier=earlier)


def known_modules(host: Host, kver: str) -> Mapping[str, ModInfo]:
    """What modules say of themselves, by the SHA-256 of their files, as far as it is known."""
    return modinfo.from_json(host.text(image_directory(kver) / _MODULES) or "")


def publish(
    host: Host, image: Manifest, packed: bytes, kernel: Kernel, noted: Mapping[str, ModInfo]
) -> None:
    """Write an image, its manifest, ``noted`` and, if it has to be stored, its kernel image.

    Raises OSError; the old image then stays valid.
    """
    files.publish(
        {
            host.path(image_path(image)): packed,
            host.path(image_directory(image.kver) / _MODULES): modinfo.to_json(noted).encode(),
            **({host.path(kernel.image): kernel.content} if kernel.content else {}),
            host.path(manifest_path(image.kver)): image.to_json().encode(),
        }
    )


def verify(host: Host, image: Manifest) -> None:
    """Check an image against its manifest. Raises TinykdumpError if it does not match."""
    path = image_path(image)
    if image.sha256 not in ("", hashlib.sha256(host.read(path)).hexdigest()):
        raise TinykdumpError(f"{path} is damaged", "rebuild the image with tinykdump -b")
    kernel = Path(image.kernel)
    if kernel.parent == path.parent and kernel.name != kernels.name(host.read(kernel)):
        raise TinykdumpError(f"{kernel} is damaged", "rebuild the image with tinykdump -b")


def stored(host: Host) -> tuple[Path, ...]:
    """The paths of all stored images and kernel images, also of those that no manifest names."""
    return tuple(
        path
        for place in host.children(IMAGES)
        for path in host.children(place)
        if path.suffix == ".img"
    )


@contextmanager
def lock(host: Host) -> Iterator[None]:
    """Let one tinykdump at a time build or load; another one waits."""
    files.private(host.path(RUNTIME))
    if host.exists(STATE):
        files.private(host.path(STATE))
    with host.path(RUNTIME / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _move_images(host)
        yield


def _move_images(host: Host) -> None:
    """Move the images of older versions, which were beside the keys, to IMAGES.

    If tinykdump is killed in between, the next run moves the rest, because each manifest is moved
    last. Paths in the manifests and in the notes of what is loaded are changed, too. Raises
    OSError.
    """
    for place in host.children(STATE):
        if not _is_old(host, place):
            continue
        new = IMAGES / place.name
        files.private(host.path(new))
        for note in (LOADED, LOADING, place / _MANIFEST):
            text = host.text(note) or ""
            moved = text.replace(f'"{place}/', f'"{new}/')
            if moved != text:
                files.publish({host.path(note): moved.encode()})
        for path in sorted(host.children(place), key=lambda path: path.name == _MANIFEST):
            host.path(path).replace(host.path(new / path.name))
        host.path(place).rmdir()


def _is_old(host: Host, place: Path) -> bool:
    """Whether a directory beside the keys is a kernel's image directory of an older version."""
    if place.name in (IMAGES.name, "keys") or host.path(place).is_symlink():
        return False
    there = host.children(place)
    if not there:  # tinykdump was killed while moving it
        return host.path(place).is_dir() and host.exists(IMAGES / place.name)
    return any(path.name == _MANIFEST or path.suffix == ".img" for path in there)


def images(host: Host) -> tuple[str, ...]:
    """The versions of all kernels that have an image."""
    return tuple(place.name for place in host.children(IMAGES) if host.exists(place / _MANIFEST))


def orphans(host: Host) -> tuple[str, ...]:
    """The versions that have an image directory, although their kernel is not installed any more.

    One that the configuration named stays while its kernel image is that version.
    """
    apart = {image.kver for image in noted(host) if image.apart and _is_there(host, image)}
    names = (place.name for place in host.children(IMAGES))
    return tuple(n for n in names if n not in apart and not kernels.is_installed(host, n))


def _is_there(host: Host, image: Manifest) -> bool:
    kernel = Path(image.kernel)
    if kernel.is_relative_to(IMAGES):
        return False
    try:
        return kernelimage.version(host.read(kernel)) == image.kver
    except TinykdumpError:
        return False


def read_manifest(host: Host, kver: str) -> Manifest | None:
    """Read and verify a kernel's manifest and image; None if there is no image.

    Raises TinykdumpError if one of them is damaged. An image of an older version, whose manifest
    has no checksum, counts as none.
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
        raise TinykdumpError(f"{name} belongs to {image.kver}", "rebuild it with tinykdump -b")
    return image


def noted(host: Host, *kvers: str) -> Iterator[Manifest]:
    """All readable manifests of these kernels, or of all. Their images may be missing."""
    for kver in kvers or images(host):
        with suppress(TinykdumpError):
            if image := _parsed(host, kver):
                yield image
