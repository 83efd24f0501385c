# SPDX-License-Identifier: GPL-2.0-or-later
"""The exact modules that a dump loads, for recorded machines and a recorded kernel."""

import json
from pathlib import Path

import pytest

from tests import elfwriter
from tests.fakehost import FakeHost
from tinykdump import config
from tinykdump.architecture import AARCH64, X86_64, Architecture
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import drivers
from tinykdump.image.module_tree import ModuleTree

RECORDS = Path(__file__).parents[1] / "records"

XHCI = ["usb_common", "usbcore", "xhci_hcd", "xhci_pci"]
EHCI = ["ehci_hcd", "ehci_pci"]
STORAGE = ["scsi_common", "scsi_mod", "usb_storage", "uas", "sd_mod"]
FAT = ["fat", "vfat", "nls_cp437", "nls_ascii"]
USUAL = [*FAT, "exfat"]


# Directories of modules that are built in in Fedora 6.17. Its modules.builtin.modinfo has no device
# tables: only Linux 6.18 and later write them there.
BUILT_IN = ("kernel/drivers/usb/common/", "kernel/drivers/usb/core/", "kernel/drivers/usb/host/",
            "kernel/drivers/scsi/s")  # fmt: skip
NO_DRIVER = "has no driver for a USB host controller"


def installed(
    fake: FakeHost, built_in: tuple[str, ...] = (), *, kind: Architecture = X86_64, suffix: str = ""
) -> ModuleTree:
    """The recorded modules of Debian 13's kernel (tests/record_kernel.py); those in the directories
    ``built_in`` are built in."""
    record = json.loads((RECORDS / f"debian13-6.12{suffix}.json").read_text())
    top = f"/lib/modules/{record['kver']}"
    builtin = list(record["modules.builtin"])
    builtin_modinfo = list(record["modules.builtin.modinfo"])
    for path, entries in record["modules"].items():
        if path.startswith(built_in):
            builtin.append(path.removesuffix(".xz"))
            builtin_modinfo.append(f"{Path(path).name.split('.')[0].replace('-', '_')}.license=GPL")
            continue
        tags = [(entry.split("=", 1)[0], entry.split("=", 1)[1]) for entry in entries]
        ending = path[path.index(".ko") :]
        fake.write(f"{top}/{path}", elfwriter.compress(elfwriter.module(tags), ending))
    fake.write(f"{top}/modules.builtin", "\n".join(builtin))
    fake.write(f"{top}/modules.builtin.modinfo", "\0".join(builtin_modinfo))
    fake.write(f"{top}/modules.alias", "\n".join(record["modules.alias"]))
    return fake.tree(record["kver"], kind)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> ModuleTree:
    return installed(FakeHost(tmp_path_factory.mktemp("recorded")))


@pytest.fixture(scope="module")
def built_in_tree(tmp_path_factory: pytest.TempPathFactory) -> ModuleTree:
    return installed(FakeHost(tmp_path_factory.mktemp("built-in")), BUILT_IN)


@pytest.fixture(scope="module")
def arm64_tree(tmp_path_factory: pytest.TempPathFactory) -> ModuleTree:
    fake = FakeHost(tmp_path_factory.mktemp("arm64"))
    return installed(fake, kind=AARCH64, suffix="-arm64")


def needed(tree: ModuleTree, root: Path, modaliases: list[str], **options: str) -> list[str]:
    fake = FakeHost(root)
    fake.pci(*modaliases)
    wanted = config.resolve([], options)
    return [
        module.name for module in drivers.needed(Host(root, live=True), wanted, tree, "").modules
    ]


def modaliases(name: str) -> list[str]:
    lines = (RECORDS / name).read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("host-q35.txt", [*XHCI, *STORAGE, *USUAL]),
        ("host-laptop.txt", ["usb_common", "usbcore", *EHCI, "xhci_hcd", "xhci_pci",
                             *STORAGE, *USUAL]),
    ],
)  # fmt: skip
def test_a_stick_with_fat(tree: ModuleTree, tmp_path: Path, host: str, expected: list[str]) -> None:
    assert needed(tree, tmp_path, modaliases(host)) == expected


@pytest.mark.parametrize(
    ("filesystems", "added"),
    [
        ("exfat", ["exfat"]),
        ("ext2", ["crc32c_generic", "jbd2", "crc16", "mbcache", "ext4"]),
        ("xfs", ["crc32c_generic", "libcrc32c", "xfs"]),
    ],
)
def test_other_file_systems(
    tree: ModuleTree, tmp_path: Path, filesystems: str, added: list[str]
) -> None:
    """ext4 and xfs request crc32c by its alias, for which the generic module is chosen."""
    found = needed(tree, tmp_path, modaliases("host-q35.txt"), filesystems=filesystems)
    assert found == [*XHCI, *STORAGE, *added]


def test_an_image_that_is_built_elsewhere_has_all_host_controllers(
    tree: ModuleTree, tmp_path: Path
) -> None:
    found = drivers.needed(FakeHost(tmp_path).host, config.resolve([], {}), tree, "").modules
    assert [module.name for module in found] == [
        *XHCI, "xhci_pci_renesas", *EHCI, "ohci_hcd", "ohci_pci",
        "uhci_hcd", "xhci_plat_hcd", *STORAGE, *USUAL,
    ]  # fmt: skip


def test_a_stick_on_arm64(arm64_tree: ModuleTree, tmp_path: Path) -> None:
    """The devices on the PCI bus of QEMU's virt are those of its q35."""
    assert needed(arm64_tree, tmp_path, modaliases("host-q35.txt")) == [*XHCI, *STORAGE, *USUAL]


def test_an_image_for_arm64_that_is_built_elsewhere_has_all_its_host_controllers(
    arm64_tree: ModuleTree, tmp_path: Path
) -> None:
    found = drivers.needed(FakeHost(tmp_path).host, config.resolve([], {}), arm64_tree, "").modules
    assert [module.name for module in found] == [
        *XHCI, "xhci_pci_renesas", *EHCI, "ohci_hcd", "ohci_pci", "xhci_plat_hcd", *STORAGE, *USUAL,
    ]  # fmt: skip


def test_a_machine_without_a_usb_driver_is_an_error(tree: ModuleTree, tmp_path: Path) -> None:
    with pytest.raises(TinykdumpError, match=NO_DRIVER):
        needed(tree, tmp_path, ["pci:v00008086d000029C0sv0sd0bc06sc00i00"])


@pytest.mark.parametrize("host", ["host-q35.txt", "host-laptop.txt"])
def test_built_in_host_controllers(built_in_tree: ModuleTree, tmp_path: Path, host: str) -> None:
    assert needed(built_in_tree, tmp_path, modaliases(host)) == ["usb_storage", "uas", *USUAL]


def test_an_image_that_is_built_elsewhere_can_have_built_in_controllers(
    built_in_tree: ModuleTree, tmp_path: Path
) -> None:
    found = drivers.needed(
        FakeHost(tmp_path).host, config.resolve([], {}), built_in_tree, ""
    ).modules
    assert [module.name for module in found] == ["usb_storage", "uas", *USUAL]


PLATFORM = "platform/VENDOR:00/xhci-hcd.1.auto"


def test_a_controller_that_is_found_by_its_driver_only(
    built_in_tree: ModuleTree, tmp_path: Path
) -> None:
    """A built-in driver for another bus than PCI has no aliases."""
    fake = FakeHost(tmp_path)
    fake.device(PLATFORM, "platform", "xhci-hcd", modalias="acpi:VENDOR00:")
    with pytest.raises(TinykdumpError, match=NO_DRIVER):
        needed(built_in_tree, tmp_path, [])
    fake.root_hub(PLATFORM)
    assert needed(built_in_tree, tmp_path, []) == ["usb_storage", "uas", *USUAL]


@pytest.mark.parametrize("added", ["ehci_pci", "xhci-plat-hcd"])
def test_a_configured_driver_is_enough_for_an_unknown_controller(
    tree: ModuleTree, built_in_tree: ModuleTree, tmp_path: Path, added: str
) -> None:
    unknown = ["pci:v00001234d00005678sv0sd0bc0Csc03i50"]
    for kernel in (tree, built_in_tree):
        with pytest.raises(TinykdumpError, match=rf"{NO_DRIVER}.*add a driver with modules ="):
            needed(kernel, tmp_path / kernel.host.root.name, unknown)
        with pytest.raises(TinykdumpError, match=NO_DRIVER):
            needed(kernel, tmp_path / kernel.host.root.name, [], modules="nls_ascii")
    assert needed(built_in_tree, tmp_path, [], modules=added) == ["usb_storage", "uas", *USUAL]
    assert set(needed(tree, tmp_path, [], modules=added)) >= {added.replace("-", "_"), *STORAGE}


def test_a_controller_that_is_passed_to_a_virtual_machine(tree: ModuleTree, tmp_path: Path) -> None:
    """vfio-pci is bound to it, but the crash kernel does not use vfio-pci."""
    fake = FakeHost(tmp_path)
    (xhci,) = (alias for alias in modaliases("host-q35.txt") if "bc0Csc03" in alias)
    fake.device("pci0000:00/0000:00:14.0", "pci", "vfio-pci", "vfio_pci", xhci)
    assert needed(tree, tmp_path, []) == [*XHCI, *STORAGE, *USUAL]


def test_the_drivers_above_a_controller_and_a_watchdog(tmp_path: Path) -> None:
    """dwc3 for xHCI, and the SMBus for iTCO_wdt, are loaded first."""
    fake = FakeHost(tmp_path)
    tree = installed(fake)
    for name in ("usb/dwc3/dwc3", "usb/dwc3/dwc3-pci", "i2c/i2c-i801", "watchdog/iTCO_wdt"):
        module = elfwriter.module([("vermagic", f"{tree.kernel.kver} SMP")])
        fake.write(f"/lib/modules/{tree.kernel.kver}/kernel/drivers/{name}.ko", module)
    usb, smbus = "pci0000:00/0000:00:15.0", "pci0000:00/0000:00:1f.4"
    fake.device(usb, "pci", "dwc3-pci", "dwc3_pci")
    fake.device(f"{usb}/dwc3.0.auto", "platform", "dwc3", "dwc3")
    fake.device(f"{usb}/dwc3.0.auto/x", "platform", "xhci-hcd", "xhci_plat_hcd")
    fake.root_hub(f"{usb}/dwc3.0.auto/x")
    fake.device(smbus, "pci", "i801_smbus", "i2c_i801")
    fake.device(f"{smbus}/iTCO_wdt.1.auto", "platform", "iTCO_wdt", "iTCO_wdt")
    fake.write("/sys/class/watchdog/watchdog0/state", "active\n")
    fake.link("/sys/class/watchdog/watchdog0/device", f"/sys/devices/{smbus}/iTCO_wdt.1.auto")
    assert needed(tree, tmp_path, []) == [
        "i2c_i801", "iTCO_wdt", "dwc3_pci", "dwc3", "usb_common", "usbcore", "xhci_hcd",
        "xhci_plat_hcd", *STORAGE, *USUAL,
    ]  # fmt: skip


def test_a_card_reader_with_its_own_driver(fake: FakeHost) -> None:
    fake.module("kernel/drivers/usb/storage/ums-realtek.ko.xz", [("depends", "usb-storage")])
    fake.module("kernel/drivers/usb/storage/ums-karma.ko.xz", [("depends", "usb-storage")])
    tree = fake.tree()
    assert not {"ums_realtek", "ums_karma"} & set(needed(tree, fake.root, []))
    fake.device("x/usb1/1-4/1-4:1.0", "usb", "ums-realtek", "ums_realtek")
    assert {"ums_realtek"} == {"ums_realtek", "ums_karma"} & set(needed(tree, fake.root, []))
    elsewhere = drivers.needed(fake.host, config.resolve([], {}), tree, "").modules
    assert "ums_realtek" in [module.name for module in elsewhere]
