"""What this machine has that the crash kernel will have to drive, read from sysfs."""

from pathlib import Path

from tinykdump.host import Host

# The class of a USB host controller in a PCI device's modalias: base class 0x0c, subclass
# 0x03 (PCI Code and ID Assignment Specification).
_PCI_USB = "bc0Csc03"


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
    """LABEL=... and UUID=... of the block device that holds the running root.

    The device is the source of / in /proc/self/mountinfo (proc(5)); its tags are udev's
    links to it.
    """
    device = None
    for line in (host.text("/proc/self/mountinfo") or "").splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[4:5] == ["/"] and len(source.split()) > 1:
            device = host.resolve(source.split()[1])
    return tuple(
        f"{tag}={link.name}"
        for tag in ("LABEL", "UUID")
        for link in host.children(f"/dev/disk/by-{tag.lower()}")
        if device is not None and host.resolve(link) == device
    )


def stick(host: Host, tag: str, value: str) -> Path | None:
    """The device node of the target when it is plugged in, through the links of udev."""
    return host.resolve(f"/dev/disk/by-{tag.lower()}/{value}")
