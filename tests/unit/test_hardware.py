from pathlib import Path

import pytest

from tests.fakehost import XHCI, FakeHost
from tinykdump import hardware

PLATFORM = "of:NusbT(null)Cgeneric-xhci"


def test_controllers_of_pci_need_no_driver_to_be_seen(fake: FakeHost) -> None:
    assert hardware.usb_controllers(fake.host) == (XHCI,)


def test_controllers_on_other_buses_are_the_parents_of_root_hubs(fake: FakeHost) -> None:
    fake.write("/sys/devices/platform/xhci.0/modalias", f"{PLATFORM}\n")
    for hub in ("usb1", "usb2"):
        fake.path(f"/sys/devices/platform/xhci.0/{hub}").mkdir()
        fake.link(f"/sys/bus/usb/devices/{hub}", f"../../../devices/platform/xhci.0/{hub}")
    # a device behind a hub, whose parent is not a controller
    fake.write("/sys/devices/platform/xhci.0/usb1/modalias", "usb:v1D6B")
    fake.path("/sys/devices/platform/xhci.0/usb1/1-1").mkdir()
    fake.link("/sys/bus/usb/devices/1-1", "../../../devices/platform/xhci.0/usb1/1-1")
    assert hardware.usb_controllers(fake.host) == (PLATFORM, XHCI)


@pytest.mark.parametrize(("state", "expected"), [("active", ("iTCO_wdt",)), ("inactive", ())])
def test_watchdogs_that_count(fake: FakeHost, state: str, expected: tuple[str, ...]) -> None:
    fake.path("/sys/module/iTCO_wdt").mkdir(parents=True)
    fake.write("/sys/class/watchdog/watchdog0/state", f"{state}\n")
    fake.link("/sys/class/watchdog/watchdog0/device/driver/module", "/sys/module/iTCO_wdt")
    # one that the kernel has built in has no module to load
    fake.write("/sys/class/watchdog/watchdog1/state", "active\n")
    assert hardware.running_watchdogs(fake.host) == expected


MOUNTS = """\
22 27 0:21 / /proc rw,nosuid shared:12 - proc proc rw
27 1 253:2 / / rw,relatime shared:1 - ext4 {root} rw
30 27 8:17 / /mnt rw,relatime shared:2 - vfat /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("/dev/vda2", ("LABEL=system", "UUID=0e1f")),
        ("/dev/mapper/vg-root", ("LABEL=system", "UUID=0e1f")),
        ("overlay", ()),
    ],
)
def test_the_tags_of_the_running_root(fake: FakeHost, root: str, expected: tuple[str, ...]) -> None:
    for device in ("vda2", "sdb1"):
        fake.write(f"/dev/{device}")
    fake.link("/dev/mapper/vg-root", "../vda2")
    for link, device in (("label/system", "vda2"), ("uuid/0e1f", "vda2"),
                         ("label/TINYKDUMP", "sdb1"), ("uuid/12AB-34CD", "sdb1")):  # fmt: skip
        fake.link(f"/dev/disk/by-{link}", f"../../{device}")
    fake.write("/proc/self/mountinfo", MOUNTS.format(root=root))
    assert hardware.root_tags(fake.host) == expected
    assert str(hardware.stick(fake.host, "LABEL", "TINYKDUMP")) == "/dev/sdb1"
    assert hardware.stick(fake.host, "LABEL", "other") is None


@pytest.mark.parametrize(
    ("written", "name"), [("/mnt/a\\040b", "/mnt/a b"), ("/mnt/José", "/mnt/José")]
)
def test_mount_points(fake: FakeHost, written: str, name: str) -> None:
    fake.write("/proc/self/mountinfo", f"30 27 8:17 / {written} rw - vfat /dev/sdb1 rw\n")
    assert hardware.mount_point(fake.host, Path("/dev/sdb1")) == Path(name)
