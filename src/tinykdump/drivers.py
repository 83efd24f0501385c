# SPDX-License-Identifier: GPL-2.0-or-later
"""The modules of an image: what this machine and configuration need of one kernel."""

import gzip
from collections.abc import Iterable

from tinykdump import hardware, image, modules, pstore
from tinykdump.cmdline import module_parameters
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import Entry
from tinykdump.kmod import ModuleTree, unpack
from tinykdump.modules import Module

# Compressions that busybox's insmod reads by itself. Every other module is compressed for the
# image with gzip: its bytes count twice while the crash kernel unpacks the image.
_READ_BY_INSMOD = (".xz", ".gz")


def needed(host: Host, config: Config, tree: ModuleTree) -> tuple[Module, ...]:
    """The modules of ``tree`` that a dump needs, in load order.

    On the machine that will crash these are the drivers of its own USB host controllers; in
    any other place, of all that there are. Raises TinykdumpError when a module is missing,
    damaged or of another kernel.
    """
    if host.is_target():
        found = modules.controllers(hardware.usb_controllers(host), tree.usb_host_drivers())
        watchdogs, log = hardware.running_watchdogs(host), pstore.modules(host)
    else:
        found = tuple(name for name in modules.ALL_CONTROLLERS if _has(tree, name))
        watchdogs, log = (), ()
    if not found:
        raise TinykdumpError(
            f"kernel {tree.kver} has no driver for a USB host controller of this machine",
            "check lspci, and add a driver with modules = in /etc/default/tinykdump",
        )
    wanted = modules.wishes(
        host_controllers=found,
        filesystems=config.filesystems,
        watchdogs=watchdogs,
        log=log,
        extra=config.modules,
    )
    return modules.closure(wanted, tree.lookup)


def _has(tree: ModuleTree, name: str) -> bool:
    return name in tree.files or name in tree.builtin


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
