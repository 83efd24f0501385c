import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinykdump.cmdline import ADDED, KEPT, crash_cmdline, module_parameters


def kept(running: str) -> str:
    return crash_cmdline(running, "").removesuffix(" ".join(ADDED)).strip()


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        ("BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro quiet rhgb", ""),
        ("console=tty0 console=ttyS0,115200n8", "console=tty0 console=ttyS0,115200n8"),
        ("crashkernel=512M hugepages=64 mem=4G rd.luks.uuid=x init=/bin/sh", ""),
        ("usbcore.nousb nousb usbcore.nousb=1", ""),
        ("usb-storage.quirks=a:b:u usbcore.quirks=c", "usb-storage.quirks=a:b:u usbcore.quirks=c"),
        ("usb_storage.delay_use=1 xhci-hcd.quirks=1", "usb_storage.delay_use=1 xhci-hcd.quirks=1"),
        ("pci=nomsi,noaer noapic pcie_aspm=off", "pci=nomsi,noaer noapic pcie_aspm=off"),
        ("acpi_osi=! acpi_enforce_resources=lax", "acpi_osi=! acpi_enforce_resources=lax"),
        ("acpixyz=1 consoles=2 pcix", ""),
        ('pci="a b" dyndbg="file x +p"', 'pci="a b"'),
        ('"acpi_osi=Windows 2009" x', '"acpi_osi=Windows 2009"'),
        ("console=ttyS0 -- console=init", "console=ttyS0"),
        ("", ""),
    ],
)
def test_what_is_taken_over(running: str, expected: str) -> None:
    assert kept(running) == expected


def test_what_is_added_comes_later_and_so_wins() -> None:
    words = crash_cmdline("console=ttyS0", 'nr_cpus=2 "a b"  c').split(" ")
    assert words == ["console=ttyS0", *ADDED, "nr_cpus=2", '"a', 'b"', "c"]


@settings(deadline=None)
@given(st.lists(st.sampled_from([*KEPT, "root", "init", "usbcore.nousb", "mem", "acpixyz"])))
def test_only_names_of_the_list(names: list[str]) -> None:
    words = [f"{name.replace('*', 'x')}=1" for name in names]
    dropped = {"root=1", "init=1", "usbcore.nousb=1", "mem=1", "acpixyz=1"}
    assert kept(" ".join(words)).split() == [word for word in words if word not in dropped]


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [
        ("", ""),
        ("usb_storage usb_storage=1 xusb_storage.x=1 usb_storages.x=1", ""),
        ("a usb-storage.quirks=1:2:u b usb_storage.delay_use=5", "quirks=1:2:u delay_use=5"),
        ('usb_storage.quirks="a  b" usb_storage.flag', 'quirks="a  b" flag'),
        ('"usb_storage.quirks=a b" usb_storage.x="usb_storage.y=1"',
         '"quirks=a b" x="usb_storage.y=1"'),
        ("usb_storage.x=usb_storage.y=1", "x=usb_storage.y=1"),
    ],
)  # fmt: skip
def test_parameters_of_a_module(cmdline: str, expected: str) -> None:
    assert module_parameters(cmdline, "usb_storage") == expected
