# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine has that the crash kernel will have to drive, read from sysfs."""

import hashlib
import re
from pathlib import Path

from tinykdump.host import Host

# The class of a USB host controller in a PCI device's modalias: base class 0x0c, subclass
# 0x03 (PCI Code and ID Assignment Specification).
_PCI_USB = "bc0Csc03"

# machine-id(5): tell others a hash of it that is made for one purpose, never the ID.
_MACHINE_SALT = b"tinykdump: the name of this machine on a stick\0"


def machine_name(host: Host) -> str:
    """What this machine is called on a stick that several share: 12 hexadecimal digits."""
    machine_id = host.text("/etc/machine-id") or host.text("/proc/sys/kernel/random/boot_id") or ""
    return hashlib.sha256(_MACHINE_SALT + machine_id.encode()).hexdigest()[:12]


def usb_controllers(host: Host) -> tuple[str, ...]:
    """The modaliases of the machine's USB host controllers.

    PCI devices of that class, whether or not a driver is bound, and the parents of the root
    hubs, which finds those on other buses.
    """
    found = set()
    for device in host.children("/sys/bus/pci/devices"):
        modalias = host.text(device / "modalias") or ""
        if _PCI_USB in modalias:
            found.add(modalias)
    for device in host.children("/sys/bus/usb/devices"):
        hub = host.resolve(device) if device.name.startswith("usb") else None
        if hub is not None:
            found.add(host.text(hub.parent / "modalias") or "")
    return tuple(sorted(found - {""}))


def running_watchdogs(host: Host) -> tuple[str, ...]:
    """The driver modules of hardware watchdogs that are counting now.

    /sys/class/watchdog/watchdogN/state is "active" then (Documentation/ABI/testing/
    sysfs-class-watchdog). One that only the kernel could name has no module to load.
    """
    found = []
    for device in host.children("/sys/class/watchdog"):
        if host.text(device / "state") != "active":
            continue
        module = host.resolve(device / "device/driver/module")
        if module:
            found.append(module.name)
    return tuple(dict.fromkeys(found))


def root_tags(host: Host) -> tuple[str, ...]:
    """LABEL=... and UUID=... of the block device that holds the running root, from udev's links."""
    devices = {device for device, place in _mounts(host) if place == Path("/")}
    return tuple(
        f"{tag}={link.name}"
        for tag in ("LABEL", "UUID")
        for link in host.children(f"/dev/disk/by-{tag.lower()}")
        if host.resolve(link) in devices
    )


def stick(host: Host, tag: str, value: str) -> Path | None:
    """The device node of the target when it is plugged in, through the links of udev."""
    return host.resolve(f"/dev/disk/by-{tag.lower()}/{value}")


def mount_point(host: Host, device: Path) -> Path | None:
    """Where a device is mounted now, or None."""
    return next((place for mounted, place in _mounts(host) if mounted == device), None)


def _mounts(host: Host) -> tuple[tuple[Path, Path], ...]:
    """Device and mount point of each mounted block device (proc(5), /proc/pid/mountinfo)."""
    found = []
    for line in (host.text("/proc/self/mountinfo") or "").splitlines():
        mount, _, source = line.partition(" - ")
        fields, sources = mount.split(), source.split()
        if len(fields) > 4 and len(sources) > 1 and sources[1].startswith("/"):
            # Spaces and the like are octal there.
            place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
            found.append((host.resolve(sources[1]) or Path(sources[1]), Path(place)))
    return tuple(found)
