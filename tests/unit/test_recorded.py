"""The exact modules that a dump loads, for recorded machines and a recorded kernel."""

import json
from pathlib import Path

import pytest

from tests import elfwriter
from tests.fakehost import FakeHost
from tinykdump import config, drivers
from tinykdump.host import Host
from tinykdump.kmod import ModuleTree

RECORDS = Path(__file__).parents[1] / "records"

XHCI = ["usb_common", "usbcore", "xhci_hcd", "xhci_pci"]
EHCI = ["ehci_hcd", "ehci_pci"]
STORAGE = ["scsi_common", "scsi_mod", "usb_storage", "uas", "sd_mod"]
FAT = ["fat", "vfat", "nls_cp437", "nls_ascii"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> ModuleTree:
    """Debian 13's kernel, as far as it was recorded (tests/record_kernel.py)."""
    record = json.loads((RECORDS / "debian13-6.12.json").read_text())
    fake = FakeHost(tmp_path_factory.mktemp("recorded"))
    top = f"/lib/modules/{record['kver']}"
    for path, entries in record["modules"].items():
        tags = [(entry.split("=", 1)[0], entry.split("=", 1)[1]) for entry in entries]
        suffix = path[path.index(".ko") :]
        fake.write(f"{top}/{path}", elfwriter.compress(elfwriter.module(tags), suffix))
    fake.write(f"{top}/modules.builtin", "\n".join(record["modules.builtin"]))
    fake.write(f"{top}/modules.builtin.modinfo", "\0".join(record["modules.builtin.modinfo"]))
    fake.write(f"{top}/modules.alias", "\n".join(record["modules.alias"]))
    return ModuleTree(fake.host, record["kver"])


def needed(tree: ModuleTree, root: Path, modaliases: list[str], **options: str) -> list[str]:
    fake = FakeHost(root)
    fake.pci(*modaliases)
    wanted = config.resolve([], options)
    return [module.name for module in drivers.needed(Host(root, target=True), wanted, tree)]


def modaliases(name: str) -> list[str]:
    lines = (RECORDS / name).read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("host-q35.txt", [*XHCI, *STORAGE, *FAT]),
        ("host-laptop.txt", ["usb_common", "usbcore", *EHCI, "xhci_hcd", "xhci_pci",
                             *STORAGE, *FAT]),
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
    """ext4 and xfs ask for crc32c by its alias, which the portable implementation answers."""
    found = needed(tree, tmp_path, modaliases("host-q35.txt"), filesystems=filesystems)
    assert found == [*XHCI, *STORAGE, *added]


def test_elsewhere_than_on_the_machine_every_controller_is_there(
    tree: ModuleTree, tmp_path: Path
) -> None:
    found = drivers.needed(FakeHost(tmp_path).host, config.resolve([], {}), tree)
    assert [module.name for module in found] == [
        "usb_common", "usbcore", "xhci_hcd", "xhci_pci", *EHCI, "ohci_hcd", "ohci_pci",
        "uhci_hcd", "xhci_plat_hcd", *STORAGE, *FAT,
    ]  # fmt: skip


def test_a_machine_without_a_driver(tree: ModuleTree, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="has no driver for a USB host controller"):
        needed(tree, tmp_path, ["pci:v00008086d000029C0sv0sd0bc06sc00i00"])
