# SPDX-License-Identifier: GPL-2.0-or-later
import subprocess
from dataclasses import replace

import pytest

from tests import elfwriter, fakehost
from tests.fakehost import KVER, XHCI_ALIAS, FakeHost
from tinykdump import config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import drivers
from tinykdump.image.modules import Module, NotFoundError

TOP = f"/lib/modules/{KVER}"


def find(fake: FakeHost, name: str) -> Module:
    found = fake.tree().lookup(name)
    assert found is not None
    return found


@pytest.mark.parametrize("suffix", [".ko", ".ko.xz", ".ko.gz", ".ko.zst"])
def test_every_compression(fake: FakeHost, suffix: str) -> None:
    fake.module(f"kernel/x-y{suffix}", [("depends", "a-b")])
    assert find(fake, "x-y") == find(fake, "x_y")
    assert find(fake, "x_y").name == "x_y"
    assert find(fake, "x_y").info.depends == ("a_b",)


def test_a_module_that_is_known_is_not_read_again(fake: FakeHost) -> None:
    """It is known by its whole file: another file of that name is read."""
    fake.module("kernel/x.ko.xz", [("depends", "a")])
    first = fake.tree()
    first.lookup("x")
    (digest,) = first.noted
    known = {digest: replace(first.noted[digest], depends=("b",))}
    again = replace(fake.tree(), known=known)
    assert again.lookup("x") == replace(find(fake, "x"), info=known[digest])
    assert again.noted == known
    fake.module("kernel/x.ko.xz", [("depends", "c")])
    other = replace(fake.tree(), known=known)
    found = other.lookup("x")
    assert found
    assert found.info.depends == ("c",)
    assert digest not in other.noted


@pytest.mark.parametrize(
    ("suffix", "says"),
    [
        (".ko", "is not a complete kernel module"),
        (".ko.xz", "cannot be unpacked"),
        (".ko.gz", "cannot be unpacked"),
        (".ko.zst", "cannot be unpacked"),
    ],
)
def test_a_module_that_is_cut_off(fake: FakeHost, suffix: str, says: str) -> None:
    whole = fake.module(f"kernel/x{suffix}").read_bytes()
    fake.write(f"{TOP}/kernel/x{suffix}", whole[:-20])
    with pytest.raises(TinykdumpError, match=rf"^{TOP}/kernel/x{suffix} {says}.*\(reinstall"):
        find(fake, "x")


@pytest.mark.parametrize("suffix", [".ko.xz", ".ko.gz", ".ko.zst"])
def test_a_module_that_is_not_compressed_as_its_name_says(fake: FakeHost, suffix: str) -> None:
    fake.write(f"{TOP}/kernel/x{suffix}", b"not compressed at all")
    with pytest.raises(
        TinykdumpError, match=rf"^{TOP}/kernel/x{suffix} cannot be unpacked: .+ \(rei"
    ):
        find(fake, "x")


@pytest.mark.parametrize(
    ("built_for", "says"), [("6.1.0-other", "kernel 6.1.0-other"), ("", "kernel unknown")]
)
def test_a_module_for_another_kernel(fake: FakeHost, built_for: str, says: str) -> None:
    fake.module("extra/x.ko", kver=built_for)
    with pytest.raises(TinykdumpError, match=f"x.ko was built for {says}, not {KVER}"):
        find(fake, "x")


REDHAT = "# as in Fedora and RHEL\nsearch updates extra built-in weak-updates\n"


@pytest.mark.parametrize(
    ("search", "places"),
    [
        ("", ["kernel", "updates/dkms"]),
        (REDHAT, ["weak-updates", "kernel/fs", "extra", "updates"]),
        ("search weak-updates built-in\n", ["kernel", "weak-updates/a"]),
        ("search extra\n", ["kernel", "extra"]),
        ("search updates/new built-in\n", ["kernel", "updates/new/x"]),
        ("search built-in updates\n", ["updates", "kernel"]),
        ("search updates \\\nbuilt-in\nsearch extra\n", ["extra", "kernel", "updates"]),
    ],
)
def test_the_file_that_depmod_chooses(fake: FakeHost, search: str, places: list[str]) -> None:
    """Each directory takes precedence over those to its left, also for the real depmod."""
    fake.write("/usr/lib/depmod.d/dist.conf", search)
    fake.write(f"{TOP}/modules.order")
    for place in places:
        fake.module(f"{place}/x.ko")
        subprocess.run(
            [fakehost.real("depmod"), "--basedir", fake.root, "--config",
             fake.path("/usr/lib/depmod.d"), KVER], check=True,
        )  # fmt: skip
        (line,) = (
            line
            for line in fake.path(f"{TOP}/modules.dep").read_text().splitlines()
            if "/x.ko" in line
        )
        assert line == f"{place}/x.ko:"
        assert str(find(fake, "x").path) == f"{TOP}/{place}/x.ko"


def test_a_module_of_another_kernel_in_weak_updates(fake: FakeHost) -> None:
    vermagic = ("vermagic", "6.0.0-other SMP preempt mod_unload modversions ")
    fake.write("/lib/modules/6.0.0-other/extra/x.ko", elfwriter.module([vermagic]))
    fake.path(f"{TOP}/weak-updates").mkdir()
    fake.link(f"{TOP}/weak-updates/x.ko", "/lib/modules/6.0.0-other/extra/x.ko")
    assert str(find(fake, "x").path) == f"{TOP}/weak-updates/x.ko"
    # Without checksums of its symbols, no other kernel loads it.
    vermagic = ("vermagic", "6.0.0-other SMP preempt mod_unload ")
    fake.write("/lib/modules/6.0.0-other/extra/x.ko", elfwriter.module([vermagic]))
    with pytest.raises(TinykdumpError, match="was built for kernel 6"):
        find(fake, "x")


def test_other_files_are_not_modules(fake: FakeHost) -> None:
    fake.write(f"{TOP}/kernel/x.ko.debug")
    fake.write(f"{TOP}/kernel/x.ko.zst.tmp")
    with pytest.raises(NotFoundError, match=rf"module x is not in {TOP} \(check the name"):
        fake.tree().lookup("x")


def test_built_in_modules(fake: FakeHost) -> None:
    tree = fake.tree()
    assert [tree.lookup(name) for name in ("usbcore", "nls_cp437", "crc32c")] == [None] * 3


def test_an_alias_chooses_the_generic_module(fake: FakeHost) -> None:
    for name in ("crc_fast", "crc_generic", "crc_other"):
        fake.module(f"kernel/{name}.ko")
    fake.write(
        f"{TOP}/modules.alias",
        "# made by depmod\nalias crypto-crc crc_fast\nalias crypto-crc crc_generic\n"
        "alias crypto-crc crc_other\nalias pci:v*crc crc_other\n",
    )
    assert find(fake, "crypto-crc").name == "crc_generic"


def test_the_drivers_of_usb_host_controllers(fake: FakeHost) -> None:
    fake.write(f"{TOP}/modules.builtin", "kernel/drivers/usb/host/ohci-pci.ko\n"
               "kernel/drivers/usb/host/uhci-hcd.ko\nkernel/drivers/char/core.ko\n")  # fmt: skip
    fake.write(f"{TOP}/modules.builtin.modinfo",
               b"ohci_pci.alias=pci:x\0ohci_pci.license=GPL\0core.alias=pci:y\0")  # fmt: skip
    found = {driver.name: driver.info.aliases for driver in
             fake.tree().usb_host_drivers()}  # fmt: skip
    assert sorted(found) == ["ehci_pci", "ohci_pci", "uhci_hcd", "xhci_hcd", "xhci_pci"]
    assert found["ohci_pci"] == ("pci:x",), "the kernel's own aliases come before the known ones"
    assert found["uhci_hcd"] == ("pci:v*d*sv*sd*bc0Csc03i00*",)


@pytest.mark.parametrize("content", [b"", b"not a module", elfwriter.module([("vermagic", "5.0")])])
@pytest.mark.parametrize(
    ("aliases", "needed"),
    [
        ("alias pci:v00001912d00000014sv* bad_hcd\nalias pci:*bc0Csc03i30* xhci_pci\n", False),
        (f"alias {XHCI_ALIAS} bad-hcd\n", True),
        # It is not known which devices it drives.
        (None, True),
    ],
)
def test_a_damaged_driver_is_an_error_only_if_it_is_needed(
    fake: FakeHost, content: bytes, aliases: str | None, needed: bool
) -> None:
    fake.write(f"{TOP}/kernel/drivers/usb/host/bad-hcd.ko", content)
    fake.remove(f"{TOP}/modules.alias")
    if aliases:
        fake.write(f"{TOP}/modules.alias", aliases)
    tree = fake.tree()
    host = Host(fake.root, live=True)
    if not needed:
        names = [
            module.name for module in drivers.needed(host, config.resolve([], {}), tree, "").modules
        ]
        assert "xhci_pci" in names
        assert "bad_hcd" not in names
        return
    with pytest.raises(TinykdumpError, match=r"usb/host/bad-hcd\.ko.*(reinstall|rebuild)"):
        drivers.needed(host, config.resolve([], {}), tree, "")


def test_a_kernel_without_modules(fake: FakeHost) -> None:
    with pytest.raises(TinykdumpError, match=r"kernel 9 has no directory /lib/modules/9 \(install"):
        fake.tree("9")


def test_modules_below_usr(fake: FakeHost) -> None:
    fake.path("/usr/lib/modules").mkdir(parents=True)
    fake.path(TOP).rename(fake.path(f"/usr{TOP}"))
    assert str(find(fake, "fat").path) == f"/usr{TOP}/kernel/fs/fat/fat.ko"
