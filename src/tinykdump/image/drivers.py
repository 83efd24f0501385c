# SPDX-License-Identifier: GPL-2.0-or-later
"""The modules of an image: what this machine and configuration need of one kernel."""

import gzip
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from tinykdump import hardware, pstore
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.hardware import Device
from tinykdump.host import Host
from tinykdump.image import entries, handover, modules
from tinykdump.image.cmdline import module_parameters, values
from tinykdump.image.entries import Entry
from tinykdump.image.modinfo import normal
from tinykdump.image.module_tree import ModuleTree, unpack
from tinykdump.image.modules import Module, NotFoundError, Wish

# Compressions that busybox's insmod reads by itself. Every other module is compressed for the
# image with gzip: its bytes count twice while the crash kernel unpacks the image.
_READ_BY_INSMOD = (".xz", ".gz")

_FIRMWARE = ("/lib/firmware/updates", "/lib/firmware")


@dataclass(frozen=True)
class Drivers:
    """What drives the devices that a dump needs."""

    modules: tuple[Module, ...]  # in load order
    parameters: Mapping[str, str]  # of each module, as insmod takes them
    firmware: tuple[str, ...] = ()  # names of files that they may ask for, built-in ones as well


@dataclass(frozen=True)
class _Policy:
    """What the machine's administrator has said of modules."""

    blacklist: Set[str]  # what is not loaded for a device
    forbidden: Mapping[str, NotFoundError]  # what is never loaded, and why


def needed(host: Host, config: Config, tree: ModuleTree, cmdline: str) -> Drivers:
    """The modules of ``tree`` that a dump needs.

    On the machine that will crash these are the drivers of its own USB host controllers; in
    any other place, of all that there are. ``cmdline`` is the crash kernel's. Raises
    TinykdumpError when a module is missing, damaged, forbidden or of another kernel.
    """
    policy = _policy(config, tree, cmdline)

    def lookup(name: str) -> Module | None:
        module = tree.lookup(name)
        if module and module.name in policy.forbidden:
            raise policy.forbidden[module.name]
        return module

    if host.live:
        wanted = _of_this_machine(host, config, tree, policy)
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
    return Drivers(found, parameters, tuple(name for info in infos for name in info.firmware))


def _policy(config: Config, tree: ModuleTree, cmdline: str) -> _Policy:
    """What modprobe.d forbids can be asked for: the configuration is of the crash kernel alone.

    The kernel knows one module_blacklist=, the last one, and spells names with underscores.
    """
    blacklist = {
        normal(name) for names in values(cmdline, "modprobe.blacklist") for name in names.split(",")
    }
    forbidden = {
        name: NotFoundError(
            f"module {name} is never loaded, says its install line in modprobe.d",
            "remove that line, or name the module with modules = in /etc/default/tinykdump",
        )
        for name in tree.rules.disabled - {normal(name) for name in config.modules}
    }
    for names in values(cmdline, "module_blacklist")[-1:]:
        for name in names.split(","):
            forbidden[name] = NotFoundError(
                f"module {name} is in module_blacklist= of the kernel command line",
                "remove it there, or add another list with append = in /etc/default/tinykdump",
            )
    return _Policy(tree.rules.blacklist | blacklist, forbidden)


def _of_this_machine(
    host: Host, config: Config, tree: ModuleTree, policy: _Policy
) -> tuple[Wish, ...]:
    devices = hardware.usb_controllers(host)
    asked = [module for name in config.modules if (module := tree.lookup(name))]
    controllers = _controllers(devices, (*tree.usb_host_drivers(), *asked), tree, policy)
    if not controllers and not any(tree.drives_usb(name) for name in config.modules):
        raise _no_driver(tree)
    return modules.wishes(
        host_controllers=controllers,
        filesystems=config.filesystems,
        buses=[name for device in devices for name in device.above],
        storage=(*({"uas"} - policy.blacklist), *hardware.usb_storage_modules(host)),
        watchdogs=_watchdogs(host, tree),
        log=pstore.modules(host),
        extra=config.modules,
    )


def _watchdogs(host: Host, tree: ModuleTree) -> list[str]:
    """The modules of the watchdogs that are counting, and of what they are behind."""
    running = hardware.running_watchdogs(host)
    names = [name for device in running if device for name in (*device.above, device.driver)]
    if None in running:  # it is one of those that are in use; softdog resets no hung kernel
        names += hardware.used_modules(host, sorted({*tree.watchdog_drivers()} - {"softdog"}))
    return names


def _controllers(
    devices: Iterable[Device], drivers: Sequence[Module], tree: ModuleTree, policy: _Policy
) -> tuple[str, ...]:
    """Those of the drivers that say they are for one of the devices, and what drives one now.

    The latter is the running kernel's: another one need not have it. It is loaded even when it
    is on a blacklist, which is about what devices ask for.
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
        "and add a driver with modules = in /etc/default/tinykdump",
    )


def files(host: Host, drivers: Drivers) -> tuple[Entry, ...]:
    """The modules as entries of the image, the list of them in load order, and firmware.

    A line of the list is a path and the module's parameters.
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
    """A module as it is in the host's tree: a signature stays valid, and xz stays small."""
    data, name = host.read(module.path), module.path.name
    if module.path.suffix not in _READ_BY_INSMOD:
        data = gzip.compress(unpack(data, module.path), mtime=0)
        name = f"{name.removesuffix('.zst')}.gz"
    return entries.file(f"/lib/modules/{name}", data, source=str(module.path))


def _firmware(host: Host, drivers: Drivers) -> tuple[Entry, ...]:
    """The firmware files that drivers name, as far as the host has them.

    A driver names all that it could ever need; what is not installed was not needed so far. The
    kernel looks into a directory for updates first (Documentation/driver-api/firmware/
    fw_search_path.rst); it finds in the image what it would find here.
    """
    found = []
    for name in dict.fromkeys(drivers.firmware):
        places = (f"{top}/{name}{suffix}" for top in _FIRMWARE for suffix in ("", ".xz", ".zst"))
        path = next((place for place in places if host.exists(place)), None)
        if path and ".." not in name:
            found.append(entries.file(path, host.read(path), source=path))
    return tuple(found)
