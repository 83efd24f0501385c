# SPDX-License-Identifier: GPL-2.0-or-later
"""A crash kernel that the configuration names: one image for all installed kernels."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakehost import (
    KVER,
    NAMES,
    XHCI,
    FakeHost,
    bzimage,
    enable_kdump,
    install_service,
    make_live,
    unified,
)
from tinykdump import actions, cli, config, kernel_install, kernels, scriptlets, state
from tinykdump.config import SMALL, Config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import build, drivers
from tinykdump.image.manifest import Manifest
from tinykdump.image.module_tree import ModuleTree

VERSION = "7.2.13-tinykdump-crash"
TOP = "/usr/lib/tinykdump/kernel"
PLAIN = config.resolve([], {"encrypt": "no"})
# The drivers of the package, as far as a dump to FAT needs them.
BUILT_IN = (
    "drivers/usb/core/usbcore", "drivers/usb/host/xhci-hcd", "drivers/usb/host/xhci-pci",
    "drivers/usb/storage/usb-storage", "drivers/usb/storage/uas", "drivers/scsi/sd_mod",
    "fs/fat/vfat", "fs/exfat/exfat", "fs/nls/nls_cp437", "fs/nls/nls_ascii",
)  # fmt: skip
OHCI = XHCI.replace("i30", "i10")


def install(fake: FakeHost, top: str = TOP, version: str = VERSION) -> None:
    """What kernel-tinykdump-crash has."""
    fake.write(f"{top}/vmlinuz", bzimage(release=version, init_size=14 << 20))
    fake.write(f"{top}/config", "CONFIG_RD_GZIP=y\nCONFIG_SLUB_TINY=y\n")
    fake.write(f"{top}/modules.builtin", "".join(f"kernel/{name}.ko\n" for name in BUILT_IN))
    fake.write(f"{top}/modules.builtin.modinfo", "xhci_pci.alias=pci:v*d*sv*sd*bc0Csc03i30*\0")


def named(choice: str = SMALL) -> Config:
    return replace(PLAIN, kernel=choice)


@pytest.fixture
def small(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    install(fake)
    fake.write("/etc/default/tinykdump", "[dump]\nencrypt = no\n[image]\nkernel = small\n")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    return fake


def manifest(fake: FakeHost, kver: str = VERSION) -> Manifest:
    found = state.read_manifest(fake.host, kver)
    assert found is not None
    return found


def test_one_image_for_all_installed_kernels(
    small: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    assert kernel_install.main(["add", KVER, "", f"/lib/modules/{KVER}/vmlinuz"]) == 0
    assert f"built the crash image of {VERSION}: " in capfd.readouterr().err
    made = manifest(small)
    assert (made.modules, made.drivers, made.apart) == ((), 0, True)
    assert made.kernel == f"{TOP}/vmlinuz"
    assert state.images(small.host) == (VERSION,)

    # A kernel update, and the removal of the old kernel.
    small.write("/lib/modules/6.99/vmlinuz", bzimage(release="6.99"))
    small.path("/lib/modules/6.99/kernel").mkdir()
    assert kernel_install.main(["add", "6.99", "", "/lib/modules/6.99/vmlinuz"]) == 0
    assert f"kept the crash image of {VERSION}: " in capfd.readouterr().err
    kernel_install.main(["remove", KVER])
    scriptlets.kernels_removed(small.host)
    assert manifest(small) == made

    # The package is removed, or updated.
    install(small, version="7.2.14-tinykdump-crash")
    assert state.orphans(small.host) == (VERSION,)
    actions.prune(small.host)
    assert state.images(small.host) == ()


def test_the_package_arms_a_machine_that_was_waiting_for_it(
    small: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without it, the installation of tinykdump could build nothing. kdump.service is enabled here,
    so that nothing is loaded."""
    install_service(small)
    enable_kdump(small)
    monkeypatch.setattr("tinykdump.image.build._try_programs", lambda _: None)
    make_live(monkeypatch)
    assert scriptlets.main(["crash-kernel"]) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("tinykdump: not armed: kdump.service is enabled and would unload ")
    assert state.images(small.host) == (VERSION,)


def test_the_package_changes_nothing_where_it_is_not_wanted(
    small: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    small.write("/etc/default/tinykdump", "[dump]\nencrypt = no\n")
    make_live(monkeypatch)
    assert scriptlets.main(["crash-kernel"]) == 0
    assert capfd.readouterr().err == ""
    assert small.snapshot() == {}


def test_the_commands_say_which_kernel(small: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["estimate"]) == 0
    assert f"crash kernel: {VERSION}\n" in (planned := capfd.readouterr().out)
    assert f"{VERSION} has no image yet" in planned
    assert cli.main(["-b"]) == 0
    assert capfd.readouterr().out.startswith(f"image of {VERSION}: ")
    assert cli.main(["estimate"]) == 0
    assert "has no image yet" not in capfd.readouterr().out
    # An option names an installed kernel.
    assert cli.main(["-b", "--kernel", KVER]) == 0
    assert capfd.readouterr().out.startswith(f"image of {KVER}: ")
    assert manifest(small, KVER).modules == NAMES


def test_status_without_an_image_names_the_small_kernel(
    small: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status"]) == 1
    assert f"no image for {VERSION} (run tinykdump -l)" in capfd.readouterr().out
    small.remove(TOP)
    assert cli.main(["status"]) == 1
    assert "install kernel-tinykdump-crash, or set kernel = installed" in capfd.readouterr().out


def test_a_unified_image_by_its_path(fake: FakeHost) -> None:
    """Its kernel image is stored, and its modules are those of the installed kernel."""
    inner = bzimage(release=KVER)
    fake.write("/boot/linux.efi", unified(linux=inner))
    made, _ = actions.build_image(fake.host, named("/boot/linux.efi"), "6.99")
    assert (made.kver, made.modules, made.apart) == (KVER, NAMES, True)
    assert fake.host.read(made.kernel) == inner
    assert Path(made.kernel).parent == state.IMAGES / KVER


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"text", "is not a"), (bzimage(), "that says its version")],
)
def test_a_path_without_a_kernel_image(fake: FakeHost, content: bytes | None, said: str) -> None:
    if content is not None:
        fake.write("/boot/mine", content)
    with pytest.raises(TinykdumpError, match=said):
        state.crash_kernel(fake.host, "/boot/mine", KVER)


def test_a_kernel_image_that_others_can_replace(fake: FakeHost) -> None:
    install(fake, "/srv/kernel")
    fake.path("/srv/kernel/vmlinuz").chmod(0o666)
    with pytest.raises(TinykdumpError, match="users other than root can write"):
        kernels.apart(fake.host, "/srv/kernel/vmlinuz")


@pytest.mark.parametrize("value", ["newest", "boot/vmlinuz", "/boot/a\nb"])
def test_values_that_name_no_kernel(value: str) -> None:
    with pytest.raises(TinykdumpError):
        config.resolve([], {"kernel": value})


def test_without_the_package_the_existing_image_stays(
    small: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    """An image of the installed kernel is better than none."""
    installed, _ = actions.build_image(small.host, PLAIN, KVER)
    small.remove(TOP)
    assert actions.best_image(small.host, named(), KVER) == installed
    assert "the small crash kernel is not installed" in capfd.readouterr().err


def needed(fake: FakeHost) -> drivers.Drivers:
    """The drivers for an image of the machine itself with the small kernel."""
    host = Host(fake.root, live=True)
    tree = ModuleTree(host, state.crash_kernel(host, SMALL, KVER))
    return drivers.needed(host, named(), tree, "")


def test_controllers_and_watchdogs_without_a_driver(small: FakeHost) -> None:
    """The stick can be on the other controller, so this is no error."""
    assert needed(small).undriven == ()
    small.device("pci0000:00/0000:00:1d.0", "pci", "ohci-pci", "ohci_pci", OHCI)
    small.device("platform/dog", "platform", "it87_wdt", "it87_wdt")
    small.write("/sys/class/watchdog/watchdog0/state", "active\n")
    small.link("/sys/class/watchdog/watchdog0/device", "/sys/devices/platform/dog")
    assert needed(small).undriven == ("USB host controller 0000:00:1d.0", "watchdog it87_wdt")
    planned = actions.draft(Host(small.root, live=True), named(), KVER)
    made = build.sketch(planned)
    assert made.undriven == planned.undriven
    assert not build.is_current(planned, replace(made, undriven=()))
    assert not build.is_current(planned, replace(made, apart=not made.apart))


def test_no_driver_for_the_controller_of_the_stick(small: FakeHost) -> None:
    top = "pci0000:00/0000:00:1d.0"
    small.device(top, "pci", "ohci-pci", "ohci_pci", OHCI)
    small.root_hub(top)
    small.device(f"{top}/usb1/1-1/1-1:1.0", "usb", "usb-storage", "usb_storage")
    with pytest.raises(TinykdumpError, match=f"kernel {VERSION} has no driver for a USB host"):
        needed(small)


def test_no_driver_for_any_controller(small: FakeHost) -> None:
    small.write(f"{TOP}/modules.builtin", "kernel/drivers/usb/core/usbcore.ko\n")
    with pytest.raises(TinykdumpError, match="has no driver for a USB host controller"):
        needed(small)


def test_encrypted_memory(small: FakeHost) -> None:
    """The parameter is the running kernel's, and the small kernel is not built for it."""
    host = Host(small.root, live=True)
    small.write("/proc/cmdline", "mem_encrypt=on")
    with pytest.raises(TinykdumpError, match=f"kernel {VERSION} cannot read memory that is enc"):
        actions.draft(host, named(), KVER)
    small.write(f"{TOP}/config", "CONFIG_RD_GZIP=y\nCONFIG_AMD_MEM_ENCRYPT=y\n")
    assert "swiotlb=" in actions.draft(host, named(), KVER).cmdline
