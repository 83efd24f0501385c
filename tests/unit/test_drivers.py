# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules in the image, and the rules of modprobe.d and the command line for them."""

import gzip
import lzma
import subprocess
from pathlib import Path

import pytest

from tests.fakehost import KVER, FakeHost
from tinykdump import config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import drivers
from tinykdump.image.drivers import Drivers
from tinykdump.image.modinfo import ModInfo
from tinykdump.image.modules import Module

CONTENT = b"\x7fELF and so on"


@pytest.mark.parametrize(
    ("name", "content", "placed"),
    [
        ("x.ko.xz", lzma.compress(CONTENT), "x.ko.xz"),
        ("x.ko.gz", gzip.compress(CONTENT, mtime=0), "x.ko.gz"),
        ("x.ko", CONTENT, "x.ko.gz"),
        ("x.ko.zst", None, "x.ko.gz"),
    ],
)
def test_busybox_can_unpack_every_module(
    fake: FakeHost, name: str, content: bytes | None, placed: str
) -> None:
    path = Path("/lib/modules/1") / name
    if content is None:
        content = subprocess.run(
            ["zstd", "-qc"], input=CONTENT, capture_output=True, check=True
        ).stdout
    fake.write(str(path), content)
    module = Module("x", path, ModInfo("1"))
    entry, order = drivers.files(fake.host, Drivers((module,), {"x": "b=2 c"}, (), {}))
    assert entry.path == f"/lib/modules/{placed}"
    assert order.content.decode() == f"{entry.path} b=2 c\n"
    unpacked = subprocess.run(
        ["busybox", "xzcat" if placed.endswith("xz") else "zcat"],
        input=entry.content, capture_output=True, check=True,
    )  # fmt: skip
    assert unpacked.stdout == CONTENT


LOCAL = "/etc/modprobe.d/local.conf"


def planned(fake: FakeHost, cmdline: str = "", **options: str) -> Drivers:
    """The drivers for an image of the machine itself."""
    host = Host(fake.root, live=True)
    return drivers.needed(host, config.resolve([], options), fake.tree(), cmdline)


def names(fake: FakeHost, cmdline: str = "", **options: str) -> set[str]:
    return {module.name for module in planned(fake, cmdline, **options).modules}


def with_more_filesystems(fake: FakeHost) -> None:
    fake.module("kernel/fs/exfat/exfat.ko")
    fake.module("kernel/fs/jbd2/jbd2.ko")
    fake.module("kernel/fs/ext4/ext4.ko", [("depends", "jbd2")])


def automatic(fake: FakeHost, *seen: str, names: str = "auto") -> tuple[str, ...]:
    """What the crash kernel mounts, when those types were seen on sticks."""
    wanted = config.resolve([], {"filesystems": names})
    host = Host(fake.root, live=True)
    return drivers.needed(host, wanted, fake.tree(), "", drivers.Seen(frozenset(seen))).filesystems


def test_file_systems_that_nobody_named(fake: FakeHost) -> None:
    assert automatic(fake) == automatic(fake, "ext4", "exfat") == ("vfat",)
    with_more_filesystems(fake)
    assert automatic(fake) == automatic(fake, "ntfs", "") == ("vfat", "exfat")
    assert automatic(fake, "ext4") == ("vfat", "exfat", "ext4")
    assert automatic(fake, "ext4", names="ext4,auto") == ("ext4", "vfat", "exfat")
    assert automatic(fake, "ext4", names="vfat") == ("vfat",)


def test_a_file_system_that_is_disabled_or_damaged_is_left_out(fake: FakeHost) -> None:
    with_more_filesystems(fake)
    fake.write(f"/lib/modules/{KVER}/kernel/fs/exfat/exfat.ko", b"damaged")
    assert automatic(fake, "ext4") == ("vfat", "ext4")
    with_more_filesystems(fake)
    fake.write(LOCAL, "install exfat /bin/false\n")
    assert automatic(fake) == ("vfat",)
    fake.write(LOCAL, "install vfat /bin/false\n")
    with pytest.raises(TinykdumpError, match="module vfat is disabled by an install line"):
        automatic(fake)
    assert automatic(fake, names="exfat") == ("exfat",)


def test_what_a_file_system_costs(fake: FakeHost) -> None:
    """Of ext4 what ext2 needs too is the price of neither."""
    with_more_filesystems(fake)
    wanted = config.resolve([], {"filesystems": "vfat exfat ext4"})
    found = drivers.needed(Host(fake.root, live=True), wanted, fake.tree(), "")
    only = {kind: [module.name for module in modules]
            for kind, modules in found.filesystem_modules.items()}  # fmt: skip
    assert only == {"vfat": ["fat", "vfat", "nls_ascii"], "exfat": ["exfat"],
                    "ext4": ["jbd2", "ext4"]}  # fmt: skip
    both = config.resolve([], {"filesystems": "ext2 ext4"})
    shared = drivers.needed(Host(fake.root, live=True), both, fake.tree(), "")
    assert set(shared.filesystem_modules.values()) == {()}


def test_parameters_of_modprobe_d_come_before_those_of_the_command_line(fake: FakeHost) -> None:
    fake.write(
        LOCAL,
        "options usb-storage quirks=1:2:u \\\n\tdelay_use=1\n"
        "options scsi_mod scan=none max_luns=2\n"
        "options usb_storage swi_tru_install=1\noptions other x=1\n",
    )
    found = planned(fake, "usb_storage.delay_use=5 other.y=1")
    listed = next(entry for entry in drivers.files(fake.host, found)
                  if entry.path == "/lib/modules.order")  # fmt: skip
    lines = [line.rpartition("/")[2] for line in listed.content.decode().splitlines()]
    assert (
        "usb-storage.ko.gz quirks=1:2:u  delay_use=1 swi_tru_install=1 delay_use=5".replace(
            "  ", " "
        )
        in lines
    )
    # scan=none would show no disk at all
    assert "scsi_mod.ko.gz max_luns=2" in lines
    assert "sd_mod.ko.gz" in lines


@pytest.mark.parametrize(
    ("text", "cmdline"),
    [
        ("blacklist uas\n", ""),
        ("install uas /bin/false\n", ""),
        ("install uas /usr/bin/true # no\n", ""),
        ("", "modprobe.blacklist=nouveau,uas"),
        ("", "module_blacklist=uas"),
    ],
)
def test_uas_is_left_out_if_it_must_not_be_loaded(fake: FakeHost, text: str, cmdline: str) -> None:
    assert "uas" in names(fake)
    fake.write(LOCAL, text)
    assert "uas" not in names(fake, cmdline)
    assert "usb_storage" in names(fake, cmdline)


def test_only_the_last_module_blacklist_counts(fake: FakeHost) -> None:
    assert "uas" in names(fake, "module_blacklist=uas module_blacklist=x")
    assert "usb_storage" in names(fake, "module_blacklist=usb-storage")


def test_a_blacklisted_module_is_loaded_if_it_is_needed_by_name(fake: FakeHost) -> None:
    fake.write(LOCAL, "blacklist usb-storage\nblacklist uas\nblacklist sd_mod\n")
    assert {"usb_storage", "sd_mod"} <= names(fake)
    assert "uas" in names(fake, modules="uas")
    # A stick that uses it now proves that it was loaded by name.
    fake.device("x/usb1/1-1/1-1:1.0", "usb", "uas", "uas")
    assert "uas" in names(fake)


def test_a_blacklisted_host_controller_driver(fake: FakeHost) -> None:
    ehci = "pci:v00008086d00001E2Dsv000017AAsd000021FAbc0Csc03i20"
    fake.device("pci0000:00/0000:00:1d.0", "pci", "ehci-pci", "ehci_pci", ehci)
    assert {"xhci_pci", "ehci_pci"} <= names(fake)
    for text in ("blacklist ehci-pci\n", "install ehci-pci /bin/true\n"):
        fake.write(LOCAL, text)
        assert {"xhci_pci", "ehci_pci"} & names(fake) == {"xhci_pci"}
    fake.write(LOCAL, "blacklist ehci-pci\nblacklist xhci_pci\n")
    with pytest.raises(TinykdumpError, match=r"has no driver .*check lspci, modprobe\.d"):
        names(fake)
    fake.root_hub("pci0000:00/0000:00:1d.0")  # it drives a controller now: it was loaded by name
    assert {"xhci_pci", "ehci_pci"} & names(fake) == {"ehci_pci"}
    # A disabled driver does not prevent the other one.
    fake.write(LOCAL, "install ehci-pci /bin/true\n")
    assert {"xhci_pci", "ehci_pci"} & names(fake) == {"xhci_pci"}


@pytest.mark.parametrize(
    ("text", "cmdline", "says"),
    [
        ("install usb-storage /bin/false\n", "",
         "module usb_storage is disabled by an install line in modprobe.d (remove that"),
        ("install fat /bin/true\n", "", "module fat is disabled by an install line"),
        ("", "module_blacklist=x,usb_storage",
         "module usb_storage is in module_blacklist= of the kernel command line (remove it"),
    ],
)  # fmt: skip
def test_a_needed_module_that_is_forbidden_is_an_error(
    fake: FakeHost, text: str, cmdline: str, says: str
) -> None:
    fake.write(LOCAL, text)
    with pytest.raises(TinykdumpError) as caught:
        names(fake, cmdline)
    assert str(caught.value).startswith(says)
    if text:
        assert {"usb_storage", "fat"} <= names(fake, modules="usb_storage fat")


def test_an_install_line_with_another_command_does_not_disable_the_module(fake: FakeHost) -> None:
    """The command is ignored, and the module is loaded."""
    fake.write(LOCAL, "install usb_storage /sbin/modprobe -i usb_storage && echo 1 >/x\n")
    assert "usb_storage" in names(fake)


def test_aliases_and_soft_dependencies_of_modprobe_d(fake: FakeHost) -> None:
    for name in ("special_hcd", "before", "after"):
        fake.module(f"extra/{name}.ko")
    fake.write(LOCAL, "alias pci:v00001B36d0000000D* special-hcd\n"
                      "softdep special_hcd pre: before post: after nosuch\n")  # fmt: skip
    found = [module.name for module in planned(fake).modules]
    assert found[:3] == ["before", "special_hcd", "after"]
    assert "xhci_pci" not in found
    fake.write(LOCAL, "alias pci:v00001B36d0000000D* off\n")
    with pytest.raises(TinykdumpError, match="has no driver"):
        names(fake)


def firmware(fake: FakeHost) -> list[str]:
    paths = (entry.path for entry in drivers.files(fake.host, planned(fake)))
    return [path for path in paths if path.startswith("/lib/firmware/")]


def test_firmware_of_built_in_drivers(fake: FakeHost) -> None:
    """Only drivers that the crash kernel needs count. The directory for updates comes first."""
    top = f"/lib/modules/{KVER}"
    for name in ("usb.mem", "updated.mem.xz", "updates/updated.mem", "gpu.bin"):
        fake.write(f"/lib/firmware/{name}", name)
    assert firmware(fake) == []
    fake.remove(f"{top}/kernel/drivers/usb/host/xhci-pci.ko.xz")
    fake.write(f"{top}/modules.builtin",
               "kernel/drivers/usb/host/xhci-pci.ko\nkernel/drivers/gpu/gpu.ko\n"
               "kernel/fs/nls/nls_cp437.ko\n")  # fmt: skip
    xhci = ("usb.mem", "updated.mem", "not-there.mem", "../lib/firmware/gpu.bin")
    tags = ["gpu.firmware=gpu.bin", *(f"xhci_pci.firmware={name}" for name in xhci)]
    fake.write(f"{top}/modules.builtin.modinfo", "\0".join(tags))
    assert firmware(fake) == ["/lib/firmware/usb.mem", "/lib/firmware/updates/updated.mem"]


def test_the_watchdog_of_a_management_controller(fake: FakeHost) -> None:
    """No class has it, and it depends on no driver of the way to the controller."""
    ipmi = {"ipmi_si", "ipmi_watchdog"}
    for name in (*ipmi, "ipmi_ssif", "ipmi_msghandler"):
        needs = [] if name == "ipmi_msghandler" else [("depends", "ipmi_msghandler")]
        fake.module(f"kernel/drivers/char/ipmi/{name}.ko", needs)
    fake.write("/sys/module/ipmi_si/refcnt", "0\n")
    fake.write("/sys/module/ipmi_watchdog/refcnt", "0\n")
    assert not ipmi & names(fake)
    fake.remove("/sys/module/ipmi_watchdog")
    fake.write("/sys/module/ipmi_watchdog/refcnt", "1\n")
    assert names(fake) >= ipmi | {"ipmi_msghandler"}
    assert "ipmi_ssif" not in names(fake)


def test_a_watchdog_without_a_device_in_sysfs(fake: FakeHost) -> None:
    """Then the watchdog driver that is in use is taken."""
    for name in ("wdat_wdt", "iTCO_wdt", "softdog"):
        fake.module(f"kernel/drivers/watchdog/{name}.ko")
    assert "wdat_wdt" not in names(fake)
    fake.write("/sys/class/watchdog/watchdog0/state", "active\n")
    for name, holders in {"wdat_wdt": 1, "iTCO_wdt": 0, "softdog": 1}.items():
        fake.write(f"/sys/module/{name}/refcnt", f"{holders}\n")
    assert names(fake) & {"wdat_wdt", "iTCO_wdt", "softdog"} == {"wdat_wdt"}
