# SPDX-License-Identifier: GPL-2.0-or-later
"""The modules of an image: what this machine and configuration need of one kernel."""

import gzip
from collections.abc import Iterable

from tinykdump import hardware, image, modules, pstore
from tinykdump.cmdline import module_parameters
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.hardware import Device
from tinykdump.host import Host
from tinykdump.image import Entry
from tinykdump.kmod import ModuleTree, unpack
from tinykdump.modules import Module, Wish

# Compressions that busybox's insmod reads by itself. Every other module is compressed for the
# image with gzip: its bytes count twice while the crash kernel unpacks the image.
_READ_BY_INSMOD = (".xz", ".gz")


def needed(host: Host, config: Config, tree: ModuleTree) -> tuple[Module, ...]:
    """The modules of ``tree`` that a dump needs, in load order.

    On the machine that will crash these are the drivers of its own USB host controllers; in
    any other place, of all that there are. Raises TinykdumpError when a module is missing,
    damaged or of another kernel.
    """
    wanted = _of_this_machine(host, config, tree) if host.is_target() else _elsewhere(config, tree)
    return modules.closure(wanted, tree.lookup)


def _of_this_machine(host: Host, config: Config, tree: ModuleTree) -> tuple[Wish, ...]:
    devices = hardware.usb_controllers(host)
    asked = [module for name in config.modules if (module := tree.lookup(name))]
    controllers = _controllers(devices, (*tree.usb_host_drivers(), *asked), tree)
    if not controllers and not any(tree.drives_usb(name) for name in config.modules):
        raise _no_driver(tree)
    watchdogs = hardware.running_watchdogs(host)
    return modules.wishes(
        host_controllers=controllers,
        filesystems=config.filesystems,
        buses=[name for device in devices for name in device.above],
        storage=("uas", *hardware.usb_storage_modules(host)),
        watchdogs=[name for device in watchdogs for name in (*device.above, device.driver)],
        log=pstore.modules(host),
        extra=config.modules,
    )


def _controllers(
    devices: Iterable[Device], drivers: Iterable[Module], tree: ModuleTree
) -> tuple[str, ...]:
    """Those of the drivers that say they are for one of the devices, and what drives one now.

    The latter is the running kernel's: another one need not have it.
    """
    bound = {device.driver for device in devices if tree.has(device.driver)}
    modaliases = [device.modalias for device in devices]
    return tuple(sorted(bound | set(modules.controllers(modaliases, drivers))))


def _elsewhere(config: Config, tree: ModuleTree) -> tuple[Wish, ...]:
    controllers = [name for name in modules.ALL_CONTROLLERS if tree.has(name)]
    if not controllers and not any(tree.drives_usb(name) for name in config.modules):
        raise _no_driver(tree)
    return modules.wishes(
        host_controllers=controllers,
        filesystems=config.filesystems,
        storage=modules.ALL_STORAGE,
        extra=config.modules,
    )


def _no_driver(tree: ModuleTree) -> TinykdumpError:
    return TinykdumpError(
        f"kernel {tree.kver} has no driver for a USB host controller of this machine",
        "check lspci, and add a driver with modules = in /etc/default/tinykdump",
    )


def entries(host: Host, chosen: Iterable[Module], cmdline: str) -> tuple[Entry, ...]:
    """The modules as entries of the image, the list of them in load order, and firmware.

    A line of the list is a path, and what ``cmdline``, the crash kernel's, has for that module.
    """
    files = {module.name: _module_entry(host, module) for module in chosen}
    order = "".join(
        f"{entry.path} {module_parameters(cmdline, name)}".rstrip() + "\n"
        for name, entry in files.items()
    )
    return (
        *files.values(),
        image.file("/lib/modules.order", order.encode()),
        *_firmware(host, chosen),
    )


def _module_entry(host: Host, module: Module) -> Entry:
    """A module as it is in the host's tree: a signature stays valid, and xz stays small."""
    data, name = host.read(module.path), module.path.name
    if module.path.suffix not in _READ_BY_INSMOD:
        data = gzip.compress(unpack(data, module.path), mtime=0)
        name = f"{name.removesuffix('.zst')}.gz"
    return image.file(f"/lib/modules/{name}", data, source=str(module.path))


def _firmware(host: Host, chosen: Iterable[Module]) -> tuple[Entry, ...]:
    """The firmware files that modules name, as far as the host has them.

    A module names all that it could ever need; what is not installed was not needed so far.
    """
    found = []
    for name in dict.fromkeys(name for module in chosen for name in module.info.firmware):
        for suffix in ("", ".xz", ".zst"):
            path = f"/lib/firmware/{name}{suffix}"
            if ".." not in name and host.exists(path):
                found.append(image.file(path, host.read(path), source=path))
                break
    return tuple(found)
