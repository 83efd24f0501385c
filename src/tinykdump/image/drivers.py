# SPDX-License-Identifier: GPL-2.0-or-later
"""Selects the modules of an image: those of one kernel that machine and configuration need."""

import gzip
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from tinykdump import hardware, pstore
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.filesystems import ALWAYS, AUTO, FILESYSTEMS, USUAL
from tinykdump.hardware import Device
from tinykdump.host import Host
from tinykdump.image import entries, handover, modules
from tinykdump.image.cmdline import module_parameters, values
from tinykdump.image.entries import Entry
from tinykdump.image.modinfo import normal
from tinykdump.image.module_tree import ModuleTree, unpack
from tinykdump.image.modules import Lookup, Module, NotFoundError, Wish

# Compressions that busybox's insmod can read. All other modules are put into the image with gzip:
# their bytes count twice while the crash kernel unpacks the image.
_READ_BY_INSMOD = (".xz", ".gz")

_FIRMWARE = ("/lib/firmware/updates", "/lib/firmware")


@dataclass(frozen=True)
class Drivers:
    """The drivers of the devices that a dump needs."""

    modules: tuple[Module, ...]  # in load order
    parameters: Mapping[str, str]  # of each module, as insmod takes them
    filesystems: tuple[str, ...]  # that the crash kernel mounts, all of FILESYSTEMS
    # Of each of these, the modules that no other one needs.
    filesystem_modules: Mapping[str, tuple[Module, ...]]
    firmware: tuple[str, ...] = ()  # names of files that they, or built-in drivers, may request
    undriven: tuple[str, ...] = ()  # devices of this machine without a driver
    watchdogs: tuple[str, ...] = ()  # modules of those that are running, or were earlier


@dataclass(frozen=True)
class _Policy:
    """The administrator's rules for modules."""

    blacklist: Set[str]  # not loaded for a device
    forbidden: Mapping[str, NotFoundError]  # never loaded, with the error that says why


@dataclass(frozen=True)
class Seen:
    """What was there now or earlier, and may be again when the machine crashes."""

    filesystems: frozenset[str] = frozenset()  # types, which AUTO adds
    readers: frozenset[str] = frozenset()  # modules of card readers
    watchdogs: tuple[str, ...] = ()  # modules of watchdogs that were running, and of their buses


NOTHING = Seen()


def needed(
    host: Host, config: Config, tree: ModuleTree, cmdline: str, seen: Seen = NOTHING
) -> Drivers:
    """The modules of ``tree`` that a dump needs.

    On the machine that will crash, these include the drivers of its own USB host controllers;
    elsewhere, those of all common ones. ``cmdline`` is the crash kernel's. Raises
    TinykdumpError when a module is missing, damaged, forbidden or of another kernel.
    """
    policy = _policy(config, tree, cmdline)

    def lookup(name: str) -> Module | None:
        module = tree.lookup(name)
        if module and module.name in policy.forbidden:
            raise policy.forbidden[module.name]
        return module

    config = replace(config, filesystems=_filesystems(config, seen.filesystems, lookup))
    if host.live:
        seen = replace(seen, watchdogs=_watchdogs(host, tree, seen))
        wanted = _of_this_machine(host, config, tree, policy, seen)
    else:
        wanted = _elsewhere(config, tree, policy)
    found = modules.closure(wanted, lookup)
    parameters = {
        module.name: module_parameters(
            cmdline, module.name, tree.rules.options.get(module.name, "")
        )
        for module in found
    }
    infos = [
        *(module.info for module in found),
        *(tree.builtin_info(wish.name) for wish in wanted if normal(wish.name) in tree.builtin),
    ]
    return Drivers(
        modules=found,
        parameters=parameters,
        filesystems=config.filesystems,
        filesystem_modules={
            name: _only_for(name, config.filesystems, lookup) for name in config.filesystems
        },
        firmware=tuple(name for info in infos for name in info.firmware),
        undriven=_undriven(host, config, tree, policy) if host.live else (),
        watchdogs=seen.watchdogs if host.live else (),
    )


def _filesystems(config: Config, seen: Iterable[str], lookup: Lookup) -> tuple[str, ...]:
    """The types that the crash kernel mounts: those of the configuration, and those of AUTO.

    Of the latter, only FAT has to be there.
    """
    found: list[str] = []
    for name in config.filesystems:
        more = [kind for kind in (USUAL, *sorted(seen)) if _can_mount(kind, lookup)]
        found += [ALWAYS, *more] if name == AUTO else [name]
    return tuple(dict.fromkeys(found))


def _can_mount(kind: str, lookup: Lookup) -> bool:
    """Whether a kernel has all modules that a type of file system needs, undamaged and allowed."""
    if kind not in FILESYSTEMS:
        return False
    try:
        modules.closure(_wishes(kind), lookup)
    except TinykdumpError:
        return False
    return True


def _wishes(*kinds: str) -> tuple[Wish, ...]:
    return tuple(Wish(name) for kind in kinds for name in FILESYSTEMS[kind].modules)


def _only_for(name: str, names: Iterable[str], lookup: Lookup) -> tuple[Module, ...]:
    """The modules that only one of the file systems ``names`` needs."""
    others = modules.closure(_wishes(*(each for each in names if each != name)), lookup)
    return tuple(each for each in modules.closure(_wishes(name), lookup) if each not in others)


def _policy(config: Config, tree: ModuleTree, cmdline: str) -> _Policy:
    """The rules of modprobe.d and the command line.

    tinykdump's configuration overrides modprobe.d, because it applies to the crash kernel only.
    The kernel uses only the last module_blacklist=, and spells names with underscores.
    """
    blacklist = {
        normal(name) for names in values(cmdline, "modprobe.blacklist") for name in names.split(",")
    }
    forbidden = {
        name: NotFoundError(
            f"module {name} is disabled by an install line in modprobe.d",
            "remove that line, or name the module with modules = in /etc/default/tinykdump",
        )
        for name in tree.rules.disabled - {normal(name) for name in config.modules}
    }
    for names in values(cmdline, "module_blacklist")[-1:]:
        for name in names.split(","):
            forbidden[name] = NotFoundError(
                f"module {name} is in module_blacklist= of the kernel command line",
                "remove it there, or append another list with append = in /etc/default/tinykdump",
            )
    return _Policy(tree.rules.blacklist | blacklist, forbidden)


def _of_this_machine(
    host: Host, config: Config, tree: ModuleTree, policy: _Policy, seen: Seen
) -> tuple[Wish, ...]:
    devices = hardware.usb_controllers(host)
    controllers = _controllers(devices, _usb_drivers(config, tree), tree, policy)
    if not _leads_to_the_stick(devices, config, tree, policy):
        raise _no_driver(tree)
    return modules.wishes(
        host_controllers=controllers,
        filesystems=config.filesystems,
        buses=[name for device in devices for name in device.above],
        storage=(
            *({"uas"} - policy.blacklist),
            *sorted({*hardware.usb_storage_modules(host), *seen.readers}),
        ),
        watchdogs=seen.watchdogs,
        log=pstore.modules(host),
        extra=config.modules,
    )


def _usb_drivers(config: Config, tree: ModuleTree) -> tuple[Module, ...]:
    asked = (module for name in config.modules if (module := tree.lookup(name)))
    return (*tree.usb_host_drivers(), *asked)


def _leads_to_the_stick(
    devices: Iterable[Device], config: Config, tree: ModuleTree, policy: _Policy
) -> bool:
    """Whether the kernel drives a controller that has USB storage now, or if none has, any.

    What the administrator adds can do so in a way that this does not know.
    """
    if any(tree.drives_usb(name) for name in config.modules):
        return True
    ways = [device for device in devices if device.stores] or devices
    return bool(_controllers(ways, _usb_drivers(config, tree), tree, policy))


def _undriven(host: Host, config: Config, tree: ModuleTree, policy: _Policy) -> tuple[str, ...]:
    """The USB host controllers and running watchdogs that the kernel has no driver for."""
    drivers = _usb_drivers(config, tree)
    devices = hardware.usb_controllers(host)
    dogs = {device.driver for device in hardware.running_watchdogs(host) if device}
    dogs |= {hardware.IPMI} & {*hardware.ipmi_watchdog(host)}
    return (
        *(f"USB host controller {device.name}" for device in devices
          if not _controllers([device], drivers, tree, policy)),
        *(f"watchdog {name}" for name in sorted(dogs) if name and not tree.has(name)),
    )  # fmt: skip


def _watchdogs(host: Host, tree: ModuleTree, seen: Seen) -> tuple[str, ...]:
    """The modules of the running watchdogs, and of the buses that they are attached to.

    A program can start a watchdog after the image was planned at boot, so those that were running
    earlier count, too.
    """
    running = hardware.running_watchdogs(host)
    names = [name for device in running if device for name in (*device.above, device.driver)]
    if None in running:  # take all that are in use; softdog cannot reset a hung kernel
        names += hardware.used_modules(host, sorted({*tree.watchdog_drivers()} - {"softdog"}))
    # In one order, whichever of them are running, so that the image stays the same.
    return tuple(sorted({*names, *hardware.ipmi_watchdog(host), *seen.watchdogs}))


def _controllers(
    devices: Iterable[Device], drivers: Sequence[Module], tree: ModuleTree, policy: _Policy
) -> tuple[str, ...]:
    """The ``drivers`` whose aliases match one of the devices, and those that drive one now.

    The latter are the running kernel's: another kernel may not have them. They are loaded even if
    blacklisted, because a blacklist applies only to loading by a device's alias.
    """
    found = {device.driver for device in devices if tree.has(device.driver)}
    for device in devices:
        names = tree.rules.aliased(device.modalias) or modules.controllers(
            [device.modalias], drivers
        )
        found |= {name for name in names if tree.has(name)} - policy.blacklist
    return tuple(sorted(found - policy.forbidden.keys()))


def _elsewhere(config: Config, tree: ModuleTree, policy: _Policy) -> tuple[Wish, ...]:
    unwanted = policy.blacklist | policy.forbidden.keys()
    controllers = [
        name
        for name in tree.kernel.architecture.controllers
        if tree.has(name) and name not in unwanted
    ]
    if not controllers and not any(tree.drives_usb(name) for name in config.modules):
        raise _no_driver(tree)
    return modules.wishes(
        host_controllers=controllers,
        filesystems=config.filesystems,
        storage=[name for name in modules.ALL_STORAGE if name not in unwanted],
        extra=config.modules,
    )


def _no_driver(tree: ModuleTree) -> TinykdumpError:
    return TinykdumpError(
        f"kernel {tree.kernel.kver} has no driver for a USB host controller of this machine",
        "check lspci, modprobe.d and module_blacklist=, "
        "or add a driver with modules = in /etc/default/tinykdump",
    )


def files(host: Host, drivers: Drivers) -> tuple[Entry, ...]:
    """The entries of the image for modules, their list in load order, and firmware.

    Each line of the list is a path and the module's parameters.
    """
    placed = {module.name: _module_entry(host, module) for module in drivers.modules}
    order = "".join(
        f"{entry.path} {drivers.parameters[name]}".rstrip() + "\n" for name, entry in placed.items()
    )
    return (
        *placed.values(),
        entries.file(handover.MODULES, order.encode()),
        *_firmware(host, drivers),
    )


def _module_entry(host: Host, module: Module) -> Entry:
    """A module, unchanged but for its compression, so that its signature stays valid."""
    data, name = host.read(module.path), module.path.name
    if module.path.suffix not in _READ_BY_INSMOD:
        data = gzip.compress(unpack(data, module.path), mtime=0)
        name = f"{name.removesuffix('.zst')}.gz"
    return entries.file(f"/lib/modules/{name}", data, source=str(module.path))


def _firmware(host: Host, drivers: Drivers) -> tuple[Entry, ...]:
    """The firmware files that drivers name, if the host has them.

    A driver names every file that it could need for any device; what is not installed was not
    needed so far. As the kernel does, this searches the directory for updates first
    (Documentation/driver-api/firmware/fw_search_path.rst).
    """
    found = []
    for name in dict.fromkeys(drivers.firmware):
        places = (f"{top}/{name}{suffix}" for top in _FIRMWARE for suffix in ("", ".xz", ".zst"))
        path = next((place for place in places if host.exists(place)), None)
        if path and ".." not in name:
            found.append(entries.file(path, host.read(path), source=path))
    return tuple(found)
