# SPDX-License-Identifier: GPL-2.0-or-later
"""Which modules a dump needs, and in which order. Values in, values out; no I/O here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import FILESYSTEMS
from tinykdump.image.modinfo import ModInfo

# What the drivers of USB host controllers on PCI are for, as their device tables have it. A kernel
# that has them built in does not say so before Linux 6.18.
CONTROLLER_ALIASES: Mapping[str, tuple[str, ...]] = {
    "uhci_hcd": ("pci:v*d*sv*sd*bc0Csc03i00*",),
    "ohci_pci": ("pci:v*d*sv*sd*bc0Csc03i10*",),
    "ehci_pci": ("pci:v*d*sv*sd*bc0Csc03i20*",),
    "xhci_pci": ("pci:v*d*sv*sd*bc0Csc03i30*",),
    "xhci_pci_renesas": ("pci:v00001912d00000014sv*", "pci:v00001912d00000015sv*"),
}

# For an image that is built elsewhere than on the machine that will crash, beside every host
# controller: the commonest kind of card reader that a machine can have.
ALL_STORAGE = ("uas", "ums_realtek")


@dataclass(frozen=True)
class Module:
    """One module of the kernel's tree."""

    name: str  # as the kernel spells it, with underscores
    path: Path  # absolute path on the host; .ko, .ko.xz, .ko.zst or .ko.gz
    info: ModInfo


@dataclass(frozen=True)
class Wish:
    """A module that is wanted, and whether the dump fails without it."""

    name: str
    required: bool = True


# name -> the module; None when it is built into the kernel. Raises NotFoundError.
Lookup = Callable[[str], Module | None]


class NotFoundError(TinykdumpError):
    """A kernel has a module neither as a file nor built in, or is not to load it."""


def controllers(modaliases: Iterable[str], drivers: Iterable[Module]) -> tuple[str, ...]:
    """The names of the ``drivers`` that handle one of the devices' ``modaliases``.

    A modalias is what a device's sysfs file of that name holds (pci:v00001B36d...); it is
    matched against the modules' aliases as modprobe does it.
    """
    devices = tuple(modaliases)
    return tuple(
        sorted(
            driver.name
            for driver in drivers
            if any(fnmatchcase(d, pattern) for pattern in driver.info.aliases for d in devices)
        )
    )


def wishes(
    *,
    host_controllers: Iterable[str],
    filesystems: Iterable[str],
    buses: Iterable[str] = (),
    storage: Iterable[str] = (),
    watchdogs: Iterable[str] = (),
    log: Iterable[str] = (),
    extra: Iterable[str] = (),
) -> tuple[Wish, ...]:
    """What a dump to a stick needs, in the order in which it is to be loaded.

    ``buses`` are what the host controllers are behind, ``storage`` protocols of sticks beside
    the usual one.
    """
    return (
        # First, so that it keeps what all others have to say.
        *(Wish(name, required=False) for name in log),
        *(Wish(name) for name in extra),
        # A watchdog that runs resets the machine in the middle of the dump if nobody feeds it.
        *(Wish(name, required=False) for name in watchdogs),
        *(Wish(name, required=False) for name in buses),
        *(Wish(name) for name in host_controllers),
        Wish("usb_storage"),
        *(Wish(name, required=False) for name in storage if name != "usb_storage"),
        Wish("sd_mod"),  # the disk that USB storage shows
        *(Wish(name) for fs in filesystems for name in FILESYSTEMS[fs].modules),
    )


def closure(wanted: Iterable[Wish], lookup: Lookup) -> tuple[Module, ...]:
    """Every module that ``wanted`` needs, each after those that it depends on.

    ``depends`` is a must; a soft dependency that the kernel does not have is left out, as
    modprobe does it. Raises NotFoundError for a required module that is not there.
    """
    found: dict[str, Module] = {}
    seen: set[str] = set()

    def visit(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        try:
            visit_needs(name)
        except NotFoundError:
            seen.discard(name)  # whoever requires it is to get the same answer
            raise

    def visit_needs(name: str) -> None:
        module = lookup(name)
        if module is None:  # built in, and so is all that it needs
            return
        for soft in module.info.softdep_pre:
            visit_if_there(soft)
        for hard in module.info.depends:
            visit(hard)
        found[module.name] = module
        for soft in module.info.softdep_post:
            visit_if_there(soft)

    def visit_if_there(name: str) -> None:
        try:
            visit(name)
        except NotFoundError:
            return

    for wish in wanted:
        if wish.required:
            visit(wish.name)
        else:
            visit_if_there(wish.name)
    return _hard_order(found)


def _hard_order(found: Mapping[str, Module]) -> tuple[Module, ...]:
    """``found`` with each module behind its hard dependencies, otherwise in the same order.

    Soft dependencies can make a cycle, and then what comes first is chance.
    """
    order: dict[str, Module] = {}
    seen: set[str] = set()

    def place(name: str) -> None:
        if name in found and name not in seen:
            seen.add(name)
            for hard in found[name].info.depends:
                place(hard)
            order[name] = found[name]

    for name in found:
        place(name)
    return tuple(order.values())
