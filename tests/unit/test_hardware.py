# SPDX-License-Identifier: GPL-2.0-or-later
import pytest

from tests.fakehost import XHCI, FakeHost
from tinykdump import hardware
from tinykdump.hardware import Device

PLATFORM = "platform:xhci-hcd"
BRIDGE = "pci0000:00/0000:00:1c.0"


def modaliases(fake: FakeHost) -> list[str]:
    return sorted(device.modalias for device in hardware.usb_controllers(fake.host))


def above(fake: FakeHost, path: str) -> tuple[str, ...]:
    (found,) = (
        one for one in hardware.usb_controllers(fake.host) if one.name == path.rsplit("/", 1)[-1]
    )
    return found.above


def test_pci_controllers_are_found_without_a_driver(fake: FakeHost) -> None:
    assert hardware.usb_controllers(fake.host) == (Device(XHCI, driver="", above=()),)


@pytest.mark.parametrize("interface", ["40", "FE"])
def test_usb4_and_usb_devices_are_not_host_controllers(fake: FakeHost, interface: str) -> None:
    fake.device("pci0000:00/0000:00:0d.2", "pci", "x", "x", XHCI.replace("i30", f"i{interface}"))
    assert modaliases(fake) == [XHCI]


def test_controllers_on_other_buses_are_the_parents_of_root_hubs(fake: FakeHost) -> None:
    fake.device("platform/xhci.0", "platform", "xhci-hcd", modalias=PLATFORM)
    for number in (1, 2):
        fake.root_hub("platform/xhci.0", number)
    # A device behind a hub: its parent is not a controller.
    fake.device("platform/xhci.0/usb1/1-1", "usb", "usb", modalias="usb:v1D6B")
    assert modaliases(fake) == sorted([PLATFORM, XHCI])


@pytest.mark.parametrize("module", ["vhci_hcd", "dummy_hcd"])
def test_virtual_controllers_are_ignored(fake: FakeHost, module: str) -> None:
    fake.device(f"platform/{module}.0", "platform", module, module, f"platform:{module}")
    fake.root_hub(f"platform/{module}.0")
    assert modaliases(fake) == [XHCI]


def test_the_drivers_above_a_controller(fake: FakeHost) -> None:
    """dwc3, as on some Intel and AMD machines: a PCI device, the core, and xHCI."""
    top = "pci0000:00/0000:00:15.0"
    fake.device(top, "pci", "dwc3-pci", "dwc3_pci", "pci:v00008086d000022B7sv0sd0bc0Csc03iFE")
    fake.device(f"{top}/dwc3.0.auto", "platform", "dwc3", "dwc3")
    fake.device(f"{top}/dwc3.0.auto/xhci.1", "platform", "xhci-hcd", modalias=PLATFORM)
    fake.root_hub(f"{top}/dwc3.0.auto/xhci.1")
    assert Device(PLATFORM, "xhci_plat_hcd", ("dwc3_pci", "dwc3")) in hardware.usb_controllers(
        fake.host
    )


def test_suppliers_are_above_a_controller(fake: FakeHost) -> None:
    """As on a Raspberry Pi 4, whose firmware resets the controller on the PCI bus, and on boards
    with a regulator on I2C."""
    host, i2c = "platform/fd500000.pcie", "platform/i2c0"
    usb = f"{host}/pci0000:00/0000:01:00.0"
    fake.device(host, "platform", "brcm-pcie", "pcie_brcmstb")
    fake.device(usb, "pci", "xhci_hcd", "xhci_pci", XHCI)
    fake.root_hub(usb)
    fake.device("platform/firmware/reset", "platform", "raspberrypi-reset", "reset_raspberrypi")
    fake.device("platform/firmware", "platform", "raspberrypi-firmware", "raspberrypi")
    fake.device(i2c, "platform", "i2c-bcm2835", "i2c_bcm2835")
    fake.device(f"{i2c}/0-002d", "i2c", "pmic", "pmic")
    fake.supplier(usb, "platform/firmware/reset")
    fake.supplier(host, f"{i2c}/0-002d")
    fake.supplier(f"{i2c}/0-002d", usb)  # each waits for the other
    assert above(fake, usb) == (
        "i2c_bcm2835", "pmic", "pcie_brcmstb", "raspberrypi", "reset_raspberrypi",
    )  # fmt: skip


def test_suppliers_that_a_controller_works_without(fake: FakeHost) -> None:
    """The graphics function of a card, which has no node in a device tree, and a link that only
    delays when the boot loader's settings are dropped."""
    card, plat = "pci0000:00/0000:02:00", "platform/xhci.1"
    fake.device(f"{card}.0", "pci", "nouveau", "nouveau")
    fake.device(f"{card}.2", "pci", "xhci_hcd", "xhci_pci", XHCI)
    fake.device(plat, "platform", "xhci-hcd", modalias=PLATFORM)
    for number, usb in enumerate((f"{card}.2", plat), start=1):
        fake.root_hub(usb, number)
        fake.supplier(usb, f"{card}.0", sync_state_only=usb == plat)
    fake.remove(f"/sys/devices/{card}.2/of_node")
    assert (above(fake, f"{card}.2"), above(fake, plat)) == ((), ())


@pytest.mark.parametrize(
    ("driver", "link", "module"),
    [
        ("xhci_hcd", "xhci_pci", "xhci_pci"),
        # Without a link: built in, on some buses.
        ("xhci_hcd", "", "xhci_pci"),
        ("ehci-pci", "", "ehci_pci"),
    ],
)
def test_the_driver_of_a_controller(fake: FakeHost, driver: str, link: str, module: str) -> None:
    fake.remove("/sys/bus/pci/devices")
    fake.device(BRIDGE, "pci", "pcieport")
    fake.device(f"{BRIDGE}/0000:01:00.0", "pci", driver, link, XHCI)
    (bound,) = hardware.usb_controllers(fake.host)
    assert bound.driver == "", "without a root hub, the driver could be vfio-pci"
    fake.root_hub(f"{BRIDGE}/0000:01:00.0")
    assert hardware.usb_controllers(fake.host) == (Device(XHCI, module, ("pcieport",)),)


@pytest.mark.parametrize(
    ("text", "count"), [("0\n", 1), ("0-3\n", 4), ("0-3,8-11\n", 12), ("", 1), (None, 1)]
)
def test_possible_cpus(fake: FakeHost, text: str | None, count: int) -> None:
    if text is not None:
        fake.write("/sys/devices/system/cpu/possible", text)
    assert hardware.possible_cpus(fake.host) == count


@pytest.mark.parametrize(
    ("attributes", "seen"),
    [
        ({"state": "active\n"}, True),
        ({"state": "inactive\n"}, False),
        # CONFIG_WATCHDOG_SYSFS is not set.
        ({"uevent": "MAJOR=248\n"}, True),
    ],
)
@pytest.mark.parametrize("module", ["iTCO_wdt", ""])
def test_running_watchdogs(
    fake: FakeHost, attributes: dict[str, str], seen: bool, module: str
) -> None:
    """The SMBus driver creates the device of iTCO_wdt. ``module`` is empty if it is built in."""
    smbus = "pci0000:00/0000:00:1f.4"
    fake.device(smbus, "pci", "i801_smbus", "i2c_i801")
    fake.device(f"{smbus}/iTCO_wdt.1.auto", "platform", "iTCO_wdt", module)
    for name, text in attributes.items():
        fake.write(f"/sys/class/watchdog/watchdog0/{name}", text)
        # sysfs shows no device for half of the drivers.
        fake.write(f"/sys/class/watchdog/watchdog1/{name}", text)
    fake.link("/sys/class/watchdog/watchdog0/device", f"/sys/devices/{smbus}/iTCO_wdt.1.auto")
    expected = (Device("", "iTCO_wdt", ("i2c_i801",)), None) if seen else ()
    assert hardware.running_watchdogs(fake.host) == expected


def test_the_drivers_of_usb_storage_that_is_plugged_in(fake: FakeHost) -> None:
    for number, driver in enumerate(("hub", "usb-storage", "ums-realtek", "usbhid")):
        module = driver.replace("-", "_")
        fake.device(f"x/usb1/1-{number}/1-{number}:1.0", "usb", driver, module)
    assert hardware.usb_storage_modules(fake.host) == ("ums_realtek", "usb_storage")
