# SPDX-License-Identifier: GPL-2.0-or-later
"""Which modules a dump needs, and in which order. Pure: values in, values out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import FILESYSTEMS
from tinykdump.image.modinfo import ModInfo

# The PCI devices that the drivers of USB host controllers match, from their device tables. Before
# Linux 6.18, a kernel's package does not have them for built-in drivers.
CONTROLLER_ALIASES: Mapping[str, tuple[str, ...]] = {
    "uhci_hcd": ("pci:v*d*sv*sd*bc0Csc03i00*",),
    "ohci_pci": ("pci:v*d*sv*sd*bc0Csc03i10*",),
    "ehci_pci": ("pci:v*d*sv*sd*bc0Csc03i20*",),
    "xhci_pci": ("pci:v*d*sv*sd*bc0Csc03i30*",),
    "xhci_pci_renesas": ("pci:v00001912d00000014sv*", "pci:v00001912d00000015sv*"),
}

# The storage drivers of an image that is not built on the machine that will crash: UAS, and the
# most common card readers.
ALL_STORAGE = ("uas", "ums_realtek")


@dataclass(frozen=True)
class Module:
    """A module of a kernel."""

    name: str  # as the kernel spells it, with underscores
    path: Path  # absolute path on the host; .ko, .ko.xz, .ko.zst or .ko.gz
    info: ModInfo


@dataclass(frozen=True)
class Wish:
    """A module to load, and whether a dump is impossible without it."""

    name: str
    required: bool = True


# Name -> the module; None if it is built into the kernel. Raises NotFoundError.
Lookup = Callable[[str], Module | None]


class NotFoundError(TinykdumpError):
    """A module is neither a file nor built in, or it must not be loaded."""


def controllers(modaliases: Iterable[str], drivers: Iterable[Module]) -> tuple[str, ...]:
    """The names of the ``drivers`` that match one of the devices' ``modaliases``.

    A modalias is the content of a device's file of that name in sysfs (pci:v00001B36d...). It
    is matched against the modules' aliases as modprobe does.
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
    """The modules that a dump to a stick needs, in the order to load them.

    ``buses`` are what the host controllers are attached to, ``storage`` the protocols of sticks
    other than usb-storage.
    """
    return (
        # First, so that pstore keeps the messages of all others.
        *(Wish(name, required=False) for name in log),
        *(Wish(name) for name in extra),
        # A running watchdog resets the machine during the dump unless its driver pings it.
        *(Wish(name, required=False) for name in watchdogs),
        *(Wish(name, required=False) for name in buses),
        *(Wish(name) for name in host_controllers),
        Wish("usb_storage"),
        *(Wish(name, required=False) for name in storage if name != "usb_storage"),
        Wish("sd_mod"),  # usb-storage provides SCSI disks
        *(Wish(name) for fs in filesystems for name in FILESYSTEMS[fs].modules),
    )


def closure(wanted: Iterable[Wish], lookup: Lookup) -> tuple[Module, ...]:
    """Every module that ``wanted`` needs, each after those that it depends on.

    As with modprobe, ``depends`` is mandatory, and a soft dependency that the kernel does not
    have is left out. Raises NotFoundError when a required module is missing.
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
            seen.discard(name)  # others that require it must get the same error
            raise

    def visit_needs(name: str) -> None:
        module = lookup(name)
        if module is None:  # built in, as is everything that it needs
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
    """``found`` with each module after its hard dependencies, otherwise in the same order.

    Soft dependencies can form a cycle, in which the order that closure() finds is arbitrary.
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
