# SPDX-License-Identifier: GPL-2.0-or-later
"""The hardware that the crash kernel needs drivers for, read from sysfs."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tinykdump.host import Host

# The class of a USB host controller in a PCI device's modalias: base class 0x0c, subclass
# 0x03, interface 0x00 to 0x30 (PCI Code and ID Assignment Specification).
_PCI_USB = re.compile("bc0Csc03i[0-3]0")

# Drivers whose modules have another name. sysfs has a link from a driver to its module; some
# built-in drivers have none.
_MODULES: Mapping[str, str] = {
    "xhci_hcd": "xhci_pci",  # of the PCI bus
    "xhci-hcd": "xhci_plat_hcd",  # of the platform bus
    "i801_smbus": "i2c_i801",
}

_DEVICES = "/sys/devices"

# Drivers of virtual host controllers: USB over IP, and one for tests.
_VIRTUAL = ("vhci_hcd", "dummy_hcd")

# The drivers of mass storage: usb-storage leaves the devices of its sub-drivers to them.
_STORAGE = ("usb_storage", "uas")
_SUB_DRIVERS = "ums_"

# The watchdog of IPMI, and the drivers that reach the management controller.
IPMI = "ipmi_watchdog"
_IPMI_WAYS = ("ipmi_si", "ipmi_ssif")

# machine-id(5): only a hash of the ID for one purpose may leave the machine.
_MACHINE_SALT = b"tinykdump: the name of this machine on a stick\0"


def machine_name(host: Host) -> str:
    """The name of this machine on a stick: 12 hexadecimal digits."""
    machine_id = host.text("/etc/machine-id") or host.text("/proc/sys/kernel/random/boot_id") or ""
    return hashlib.sha256(_MACHINE_SALT + machine_id.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Device:
    """A device that the crash kernel needs, and the modules that drive it now."""

    modalias: str
    driver: str  # the module of its driver; empty: none
    # The modules of the devices that it needs, each after those that it needs itself.
    above: tuple[str, ...]
    name: str = field(default="", compare=False)  # as sysfs spells it
    stores: bool = field(default=False, compare=False)  # whether USB storage is plugged into it


def possible_cpus(host: Host) -> int:
    """How many processors the running kernel supports, from a list such as 0-3."""
    numbers = re.findall("[0-9]+", host.text("/sys/devices/system/cpu/possible") or "0")
    return int(numbers[-1]) + 1


def screen_bytes(host: Host) -> int:
    """Bytes of a copy of the largest screen, with 4 for each of its points; 0 if there is none.

    The firmware's own mode, which a crash kernel would use, is not in sysfs.
    """
    sizes = [
        host.text(each / "virtual_size") or ""  # 1920,1080
        for each in host.children("/sys/class/graphics")
    ]
    for connector in host.children("/sys/class/drm"):
        sizes += (host.text(connector / "modes") or "").splitlines()  # 1920x1080
    found = (re.match("([0-9]{1,5})[x,]([0-9]{1,5})", size) for size in sizes)
    return max((4 * int(match[1]) * int(match[2]) for match in found if match), default=0)


def usb_controllers(host: Host) -> tuple[Device, ...]:
    """The machine's USB host controllers.

    PCI devices of that class, whether or not a driver is bound, and the parents of the root
    hubs, which finds those on other buses. A driver counts only if it has made a root hub: another
    one, such as vfio-pci, may hold the controller for a virtual machine.
    """
    found: dict[Path, Device] = {}
    for device in host.children("/sys/bus/pci/devices"):
        if _PCI_USB.search(host.text(device / "modalias") or ""):
            path = host.resolve(device) or device
            found[path] = replace(_device(host, path), driver="")
    for device in host.children("/sys/bus/usb/devices"):
        hub = host.resolve(device) if device.name.startswith("usb") else None
        if hub is not None and _bound(host, hub.parent) not in _VIRTUAL:
            found[hub.parent] = _device(host, hub.parent)
    storage = [path for path in _interfaces(host) if _is_storage(_bound(host, path))]
    return tuple(
        replace(found[path], stores=any(each.is_relative_to(path) for each in storage))
        for path in sorted(found)
    )


def running_watchdogs(host: Host) -> tuple[Device | None, ...]:
    """The watchdogs that are running; None for one without a device in sysfs.

    /sys/class/watchdog/watchdogN/state is "active" then (Documentation/ABI/testing/
    sysfs-class-watchdog). A kernel without CONFIG_WATCHDOG_SYSFS does not say, so they could all
    be running. Half of the drivers, such as wdat_wdt and i6300esb, register no parent
    device, and softdog has none.
    """
    active = (
        host.resolve(watchdog / "device")
        for watchdog in host.children("/sys/class/watchdog")
        if host.text(watchdog / "state") in ("active", None)
    )
    return tuple(_device(host, path) if path is not None else None for path in active)


def ipmi_watchdog(host: Host) -> tuple[str, ...]:
    """The modules that the watchdog of the management controller needs, if it is open.

    It is a misc device (drivers/char/ipmi/ipmi_watchdog.c), which /sys/class/watchdog does not
    list. Its driver stops it when it is loaded, so src/crash does not feed it. It depends on no
    module that talks to the controller, so that is found here, too.
    """
    if not used_modules(host, [IPMI]):
        return ()
    return (*(name for name in _IPMI_WAYS if host.exists(f"/sys/module/{name}")), IPMI)


def used_modules(host: Host, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the modules that are in use, for example because a device is open."""
    return tuple(
        name for name in names
        if (host.text(f"/sys/module/{name}/refcnt") or "0") != "0"
    )  # fmt: skip


def usb_storage_modules(host: Host) -> tuple[str, ...]:
    """The modules that drive the USB storage that is plugged in, including card readers."""
    bound = {_bound(host, interface) for interface in _interfaces(host)}
    return tuple(sorted(filter(_is_storage, bound)))


def _interfaces(host: Host) -> Iterator[Path]:
    """The USB devices and their interfaces, as paths below /sys/devices."""
    for each in host.children("/sys/bus/usb/devices"):
        yield host.resolve(each) or each


def _is_storage(module: str) -> bool:
    return module in _STORAGE or drives_reader(module)


def drives_reader(module: str) -> bool:
    """Whether a module drives card readers, which usb-storage leaves to it."""
    return module.startswith(_SUB_DRIVERS)


def _device(host: Host, path: Path) -> Device:
    above = (_bound(host, each) for each in _needs(host, path))
    return Device(
        modalias=host.text(path / "modalias") or "",
        driver=_bound(host, path),
        above=tuple(dict.fromkeys(name for name in above if name)),
        name=path.name,
    )


def _needs(host: Host, device: Path) -> tuple[Path, ...]:
    """The parents and the suppliers of a device, those of each before it."""
    found: dict[Path, None] = {}
    entered = {device}  # two devices can name each other

    def visit(path: Path) -> None:
        for each in (path.parent, *_suppliers(host, path)):
            if each not in entered and each.is_relative_to(_DEVICES):
                entered.add(each)
                visit(each)
                found[each] = None

    visit(device)
    return tuple(found)


def _suppliers(host: Host, device: Path) -> Iterator[Path]:
    """The devices that the device tree names for a device: its resets, PHYs, clocks, regulators.

    A device without a node in the device tree can have suppliers as well, such as the graphics
    function that a PCI device shares its power with. It works without their drivers.
    (Documentation/ABI/testing/sysfs-devices-supplier and sysfs-class-devlink.)
    """
    if not host.exists(device / "of_node"):
        return
    for link in host.children(device):
        if not link.name.startswith("supplier:") or host.text(link / "sync_state_only") == "1":
            continue
        supplier = host.resolve(link / "supplier")
        if supplier is not None:
            yield supplier


def _bound(host: Host, device: Path) -> str:
    """The module of the driver that is bound to a device, or ""."""
    driver = host.resolve(device / "driver")
    if driver is None:
        return ""
    module = host.resolve(driver / "module")
    name = module.name if module else _MODULES.get(driver.name, driver.name)
    return name.replace("-", "_")  # as the kernel spells modules
