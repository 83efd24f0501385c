# SPDX-License-Identifier: GPL-2.0-or-later
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinykdump.architecture import AARCH64, X86_64
from tinykdump.image.cmdline import (
    DEFAULTS,
    crash_cmdline,
    encrypts_memory,
    fewer_levels,
    module_parameters,
    values,
)


def kept(running: str) -> str:
    line = crash_cmdline(X86_64, running, "", ())
    first, last = " ".join(DEFAULTS), " ".join(X86_64.added)
    return line.removeprefix(first).removesuffix(last).strip()


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
        (
            "module_blacklist=uas,x modprobe.blacklist=y initcall_blacklist=a,b",
            "module_blacklist=uas,x modprobe.blacklist=y initcall_blacklist=a,b",
        ),
        (
            "usbcore.authorized_default=0 usbcore.old_scheme_first=1 scsi_mod.scan=none",
            "usbcore.old_scheme_first=1",
        ),
        ("mem_encrypt=off ivrs_ioapic[4]=00:14.0", "mem_encrypt=off ivrs_ioapic[4]=00:14.0"),
        ('pci="a b" dyndbg="file x +p"', 'pci="a b"'),
        ('"acpi_osi=Windows 2009" x', '"acpi_osi=Windows 2009"'),
        ("console=ttyS0 -- console=init", "console=ttyS0"),
        ("", ""),
    ],
)
def test_kept_parameters(running: str, expected: str) -> None:
    assert kept(running) == expected


@pytest.mark.parametrize(
    ("running", "encrypts"),
    [("mem_encrypt=on", True), ("mem_encrypt=off mem_encrypt=on", True), ("mem_encrypt=off", False),
     ("mem_encrypt", False), ("mem_encrypt=on mem_encrypt=off", False), ("", False)],
)  # fmt: skip
def test_memory_encryption_is_kept(running: str, encrypts: bool) -> None:
    """The crash kernel needs the same setting, but only small bounce buffers."""
    words = crash_cmdline(X86_64, running, "", ()).split()
    assert [word for word in words if word.startswith("mem_encrypt")] == running.split()
    assert ("swiotlb=4096" in words) == encrypts
    assert encrypts_memory(" ".join(words)) == encrypts


RAM = "00001000-0009fbff : System RAM\n100000000-{:x} : System RAM\n  1{:x}-2 : Kernel code\n"


@pytest.mark.parametrize(
    ("iomem", "expected"),
    [
        (RAM.format((1 << 46) - 1, 1 << 50), ("no5lvl",)),
        (RAM.format(1 << 46, 0), ()),
        (RAM.format((1 << 52) - 1, 0), ()),
        ("00000000-00000000 : System RAM\n", ()),  # for others than root
        ("fed00000-fed003ff : HPET 0\n", ()),
        ("", ()),
    ],
)
def test_fewer_levels_where_they_reach_all_memory(iomem: str, expected: tuple[str, ...]) -> None:
    assert fewer_levels(X86_64, iomem) == expected
    assert fewer_levels(AARCH64, iomem) == ()


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [("", ()), ("a-b=1 c=2 a_b=3", ("1", "3")), ('a_b="x y" a_b', ("x y",)), ("a_bc=1", ())],
)
def test_values(cmdline: str, expected: tuple[str, ...]) -> None:
    assert values(cmdline, "a_b") == expected


def test_appended_parameters_come_last() -> None:
    words = crash_cmdline(X86_64, "console=ttyS0", 'nr_cpus=2 "a b"  c', ()).split(" ")
    expected = [*DEFAULTS, "console=ttyS0", *X86_64.added, "nr_cpus=2", '"a', 'b"', "c"]
    assert words == expected


@pytest.mark.parametrize(
    ("running", "expected"), [("", ("0",)), ("usb-storage.delay_use=3", ("0", "3"))]
)
def test_the_delay_of_usb_storage_can_be_set(running: str, expected: tuple[str, ...]) -> None:
    """The last value counts."""
    line = crash_cmdline(X86_64, running, "", ())
    assert values(line, "usb_storage.delay_use") == expected


@settings(deadline=None)
@given(st.lists(st.sampled_from([*X86_64.kept, "root", "init", "usbcore.nousb", "mem", "acpixyz"])))
def test_only_listed_parameters_are_kept(names: list[str]) -> None:
    words = [f"{name.replace('*', 'x')}=1" for name in names]
    dropped = {"root=1", "swiotlb=4096", "init=1", "usbcore.nousb=1", "mem=1", "acpixyz=1"}
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


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("quirks=1:2:u", "quirks=1:2:u delay_use=5"),
        ('a="x y"  b', 'a="x y" b delay_use=5'),
        ("delay_use=1", "delay_use=1 delay_use=5"),
    ],
)
def test_parameters_of_modprobe_d_come_first(options: str, expected: str) -> None:
    assert module_parameters("usb-storage.delay_use=5", "usb_storage", options) == expected


def test_parameters_that_would_disable_the_stick_are_dropped() -> None:
    assert module_parameters("", "usbcore", "nousb authorized-default=0 x=1") == "x=1"
    assert module_parameters("usbcore.nousb=0", "usbcore", "") == "nousb=0", "append = may set it"
