# SPDX-License-Identifier: GPL-2.0-or-later
"""The installed kernels: their image, modules and .config, found once and passed on as a value."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tinykdump import kernelimage
from tinykdump.architecture import Architecture
from tinykdump.config import INSTALLED, SMALL
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.run import run

# The small crash kernel of the package kernel-tinykdump-crash. Beside it are its configuration
# and the lists of its built-in drivers, as in a directory of modules.
SMALL_IMAGE = Path("/usr/lib/tinykdump/kernel/vmlinuz")


@dataclass(frozen=True)
class Kernel:
    """An installed kernel, or one that only starts after a crash."""

    kver: str  # as uname -r prints it
    image: Path  # the image that kexec loads with the crash image
    modules: Path  # the directory of its modules
    config: str  # the text of its .config; empty if not installed
    architecture: Architecture
    content: bytes = b""  # to write to ``image``; empty: it exists already
    apart: bool = False  # whether the configuration names it, whatever kernel crashes


def find(
    host: Host, kver: str, given: str = "", *, beside: Path, earlier: Iterable[str] = ()
) -> Kernel:
    """The kernel of that version; its image is ``given``, in a usual place, or in ``earlier``.

    The copy beside the modules comes first: /boot may have any layout, or not be mounted. kexec
    cannot load a unified or packed image: what is in it has to be stored in ``beside``. Raises
    TinykdumpError if there are no modules or no image.
    """
    modules = module_directory(host, kver)
    why = f"no kernel image of {kver}"
    for place in (*_places(host, kver, given), *earlier):
        if not place or not host.exists(place):
            continue
        content = host.read(place)
        inner = kernelimage.loadable(content, _unzstd)
        if not inner:
            why = f"{place} is not a {kernelimage.KINDS} and contains none"
        elif kernelimage.version(inner) not in ("", kver):
            why = f"{place} is kernel {kernelimage.version(inner)}, not {kver}"
        else:
            kind, settings = kernelimage.architecture(inner, place), config(host, kver)
            if inner is content:
                return Kernel(kver, Path(place), modules, settings, kind)
            return Kernel(kver, beside / name(inner), modules, settings, kind, inner)
    raise TinykdumpError(why, "install that kernel, or run kernel-install add KVER IMAGE")


def apart(host: Host, choice: str) -> tuple[str, bytes] | None:
    """Version and loadable image of the crash kernel that the configuration names.

    ``choice`` is its key kernel. None: the crash kernel is the installed one. Raises TinykdumpError
    if there is no such image, or if users other than root can replace it.
    """
    if choice == INSTALLED:
        return None
    place = _place(choice)
    if choice == SMALL and not host.exists(place):
        raise TinykdumpError(
            f"the small crash kernel is not installed: no {place}",
            "install kernel-tinykdump-crash, or set kernel = installed in [image]",
        )
    content = host.read(place)
    host.vouch(place)
    inner = kernelimage.loadable(content, _unzstd)
    if not inner or not kernelimage.version(inner):
        raise TinykdumpError(
            f"{place} is not a {kernelimage.KINDS} that says its version",
            "name another one with kernel in [image]",
        )
    return kernelimage.version(inner), inner


def _unzstd(data: bytes) -> bytes:
    return run(["zstd", "-dcq"], stdin=data).stdout


def _place(choice: str) -> Path:
    return SMALL_IMAGE if choice == SMALL else Path(choice)


def find_apart(host: Host, choice: str, inner: bytes, *, beside: Path) -> Kernel:
    """The crash kernel that the configuration names; ``inner`` is its loadable image.

    It is all built in, with its lists beside it, or it has modules where installed kernels have
    theirs. Raises TinykdumpError if there is neither.
    """
    place, kver = _place(choice), kernelimage.version(inner)
    has_lists = host.exists(place.parent / "modules.builtin")
    stored = inner != host.read(place)
    return Kernel(
        kver=kver,
        image=beside / name(inner) if stored else place,
        modules=place.parent if has_lists else module_directory(host, kver),
        config=config(host, kver, place),
        architecture=kernelimage.architecture(inner, str(place)),
        content=inner if stored else b"",
        apart=True,
    )


def name(content: bytes) -> str:
    """The name of a stored kernel image, with its checksum, so that it can be verified."""
    return f"linux-{hashlib.sha256(content).hexdigest()[:16]}.img"


def module_directory(host: Host, kver: str) -> Path:
    """The directory of a kernel's modules. Raises TinykdumpError if there is none."""
    for top in ("/lib/modules", "/usr/lib/modules"):
        if host.exists(f"{top}/{kver}"):
            return Path(top) / kver
    raise TinykdumpError(
        f"kernel {kver} has no directory /lib/modules/{kver}",
        "install that kernel's modules, or name an installed kernel",
    )


def is_installed(host: Host, kver: str) -> bool:
    """Whether a kernel is there, and not only what others have left in its directory.

    Its package has both files; a kernel that is all built in has no directory of modules.
    """
    places = (f"/lib/modules/{kver}", f"/usr/lib/modules/{kver}")
    names = ("kernel", "modules.builtin")
    return any(host.exists(f"{place}/{name}") for place in places for name in names)


def config(host: Host, kver: str, image: str | Path = "/") -> str:
    """The text of a kernel's .config; empty if its package does not install it.

    One that is not installed has it beside its image.
    """
    beside = Path(image).parent / "config"
    places = (f"/lib/modules/{kver}/config", f"/boot/config-{kver}", beside)
    return next((text for place in places if (text := host.text(place))), "")


def _places(host: Host, kver: str, given: str) -> Iterator[str]:
    """The places where a kernel image can be, the best first.

    On boot partitions kernel-install (90-loaderentry and 90-uki-copy) names directories and
    unified images by the entry token, by default the machine ID.
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
                if path.name.startswith(f"{token}-{kver}+")  # boot counting: +tries
            )
    yield from (f"{modules}/vmlinuz-virt.efi", f"/boot/vmlinuz-{kver}")
