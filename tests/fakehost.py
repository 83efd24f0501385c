# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine as a directory tree: the files that tinykdump reads on a host."""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import tinykdump
from tests import elfwriter
from tinykdump import kernels, state
from tinykdump.architecture import X86_64, Architecture
from tinykdump.host import Host
from tinykdump.image.module_tree import ModuleTree
from tinykdump.kernels import Kernel

# PYTHONPATH for a Python that a test starts.
SOURCE = str(Path(tinykdump.__file__).parents[1])

KVER = "6.1.0-fake"
STATE = f"{state.IMAGES}/{KVER}"

# The modalias of qemu-xhci.
XHCI = "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30"
XHCI_ALIAS = "pci:v*d*sv*sd*bc0Csc03i30*"

# Modules with the dependencies of a distribution's kernel, in every compression.
MODULES: dict[str, Sequence[tuple[str, str]]] = {
    "drivers/usb/host/xhci-pci.ko.xz": [("depends", "xhci-hcd"), ("alias", XHCI_ALIAS)],
    "drivers/usb/host/xhci-hcd.ko.zst": [("depends", "")],
    "drivers/usb/host/ehci-pci.ko": [("alias", "pci:v*d*sv*sd*bc0Csc03i20*")],
    "drivers/usb/storage/usb-storage.ko.gz": [("depends", "scsi_mod")],
    "drivers/usb/storage/uas.ko": [("depends", "usb-storage,scsi_mod")],
    "drivers/scsi/sd_mod.ko": [("depends", "scsi_mod"), ("softdep", "pre: crc32c")],
    "drivers/scsi/scsi_mod.ko": [],
    "fs/fat/vfat.ko": [("depends", "fat")],
    "fs/fat/fat.ko": [],
    "fs/nls/nls_ascii.ko": [],
}
# The modules of its image, which has the drivers of all common host controllers.
NAMES = ("xhci_hcd", "xhci_pci", "ehci_pci", "scsi_mod", "usb_storage", "uas", "sd_mod",
         "fat", "vfat", "nls_ascii")  # fmt: skip


def bzimage(
    *, version: int = 0x20F, init_size: int = 40 << 20, magic: bytes = b"HdrS", release: str = ""
) -> bytes:
    """The start of a kernel image of that release (Documentation/arch/x86/boot.rst)."""
    image = bytearray(0x400)
    image[0x202:0x206] = magic
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<I", image, 0x260, init_size)
    if release:
        struct.pack_into("<H", image, 0x20E, 0x300 - 0x200)
        image[0x300:0x380] = f"{release} (me@here) #1 SMP".encode().ljust(0x80, b"\0")
    return bytes(image)


def unified(**sections: bytes) -> bytes:
    """A PE file with these sections, such as .osrel, .linux and .initrd, as ukify(1) makes it."""
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    head += struct.pack("<4sHH12xHH", b"PE\0\0", 0x8664, len(sections), 240, 0) + bytes(240)
    table, data, start = b"", b"", 0x1000
    for name, content in sections.items():
        stored = -(-len(content) // 512) * 512
        table += struct.pack("<8sIIII16x", f".{name}".encode(), len(content), 0,
                             stored, start + len(data))  # fmt: skip
        data += content.ljust(stored, b"\0")
    return (head + table).ljust(start, b"\0") + data


@dataclass(frozen=True)
class FakeHost:
    """A directory tree below ``root``; all methods take paths of the host."""

    root: Path

    @property
    def host(self) -> Host:
        """The host, for tinykdump's functions."""
        return Host(self.root)

    def path(self, name: str) -> Path:
        """The real path of ``name``."""
        return self.root / name.lstrip("/")

    def write(self, name: str, content: str | bytes = b"", mode: int = 0o644) -> Path:
        """Write a new file; an existing one is not changed, because it may have hard links."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def link(self, name: str, target: str) -> None:
        """Make a symbolic link."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def remove(self, name: str) -> None:
        """Remove a file or a directory."""
        path = self.path(name)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    def module(self, place: str, tags: Iterable[tuple[str, str]] = (), *, kver: str = KVER) -> Path:
        """Write a module at ``place`` below the directory of KVER, built for ``kver``."""
        suffix = place[place.index(".ko") :]
        built_for = ("vermagic", f"{kver} SMP preempt mod_unload ")
        content = elfwriter.compress(elfwriter.module([built_for, *tags]), suffix)
        return self.write(f"/lib/modules/{KVER}/{place}", content)

    def pci(self, *modaliases: str) -> None:
        """Add PCI devices to sysfs."""
        for number, modalias in enumerate(modaliases):
            self.write(f"/sys/bus/pci/devices/0000:00:{number:02x}.0/modalias", f"{modalias}\n")

    def device(
        self, path: str, bus: str, driver: str, module: str = "", modalias: str = ""
    ) -> None:
        """Add a device below /sys/devices with its driver.

        If ``module`` is "", the driver has no link to a module, like some built-in drivers.
        """
        place = f"/sys/bus/{bus}/drivers/{driver}"
        self.path(place).mkdir(parents=True, exist_ok=True)
        if module and not self.path(f"{place}/module").is_symlink():
            self.path(f"/sys/module/{module}").mkdir(parents=True, exist_ok=True)
            self.link(f"{place}/module", f"/sys/module/{module}")
        self.write(f"/sys/devices/{path}/modalias", f"{modalias}\n")
        self.link(f"/sys/devices/{path}/driver", place)
        self.link(f"/sys/bus/{bus}/devices/{Path(path).name}", f"/sys/devices/{path}")

    def root_hub(self, path: str, number: int = 1) -> None:
        """Add a root hub to a host controller."""
        self.path(f"/sys/devices/{path}/usb{number}").mkdir()
        self.link(f"/sys/bus/usb/devices/usb{number}", f"/sys/devices/{path}/usb{number}")

    def supplier(self, path: str, supplier: str, sync_state_only: bool = False) -> None:
        """Make one device below /sys/devices the supplier of another, as the device tree does."""
        self.path(f"/sys/devices/{path}/of_node").mkdir(exist_ok=True)
        link = f"/sys/devices/virtual/devlink/{Path(supplier).name}--{Path(path).name}"
        self.write(f"{link}/sync_state_only", f"{sync_state_only:d}\n")
        self.link(f"{link}/supplier", f"/sys/devices/{supplier}")
        self.link(f"/sys/devices/{path}/supplier:platform:{Path(supplier).name}", link)

    def kernel(self, kver: str = KVER) -> Kernel:
        """An installed kernel."""
        return state.find_kernel(self.host, kver)

    def tree(self, kver: str = KVER, kind: Architecture = X86_64) -> ModuleTree:
        """The modules of a kernel, which does not need a kernel image."""
        directory = kernels.module_directory(self.host, kver)
        return ModuleTree(self.host, Kernel(kver, Path(), directory, "", kind))

    def image(self, kver: str = KVER) -> Path:
        """The only image of a kernel."""
        (found,) = self.path(f"{state.IMAGES}/{kver}").glob("*.img")
        return found

    def snapshot(self, name: str = "/var/lib/tinykdump") -> dict[str, tuple[int, bytes]]:
        """The mode and the content of every file below ``name``."""
        top = self.path(name)
        return {
            str(path.relative_to(top)): (
                path.stat().st_mode, path.read_bytes() if path.is_file() else b"",
            )
            for path in sorted(top.rglob("*"))
            if not path.is_socket()
        }  # fmt: skip


def write(root: Path) -> FakeHost:
    """A machine with a kernel, its modules and one xHCI controller. Its programs are empty ELF
    files, except for busybox, which must list its applets."""
    fake = FakeHost(root)
    for place, tags in MODULES.items():
        fake.module(f"kernel/{place}", tags)
    top = f"/lib/modules/{KVER}"
    fake.write(f"{top}/modules.builtin", "kernel/drivers/usb/core/usbcore.ko\n"
               "kernel/fs/nls/nls_cp437.ko\nkernel/crypto/crc32c-generic.ko\n")  # fmt: skip
    fake.write(f"{top}/modules.builtin.modinfo", b"usbcore.license=GPL\0")
    fake.write(f"{top}/modules.alias", "alias crc32c crc32c_generic\n")
    fake.write(f"{top}/config", "CONFIG_RD_ZSTD=y\n")
    fake.write(f"{top}/vmlinuz", bzimage())
    fake.pci("pci:v00008086d000029C0sv00001AF4sd00001100bc06sc00i00", XHCI)
    fake.path("/sys/bus/usb/devices").mkdir(parents=True)
    fake.write("/sys/kernel/kexec_crash_size", "0\n")
    fake.write("/sys/kernel/kexec_crash_loaded", "0\n")
    fake.write("/proc/sys/kernel/osrelease", f"{KVER}\n")
    fake.write("/proc/cmdline", "root=/dev/vda1 console=ttyS0 quiet\n")
    fake.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    fake.write("/bin/sh")
    fake.write("/usr/bin/busybox", real("busybox").read_bytes(), 0o755)
    for name in ("makedumpfile", "gpg"):
        fake.write(f"/usr/bin/{name}", elfwriter.program(), 0o755)
    return fake


# A busybox to test with instead of this machine's: that of another distribution.
BUSYBOX = "TINYKDUMP_TEST_BUSYBOX"


def real(name: str) -> Path:
    """The path of a program on the machine that runs the tests."""
    if name == "busybox" and BUSYBOX in os.environ:
        return Path(os.environ[BUSYBOX])
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert found, f"{name} is not installed (run tools/deps)"
    return Path(found)


def busybox_without_final_actions() -> bytes:
    """The real one as SUSE configures it: three names in its sorted table are others."""
    program = real("busybox").read_bytes()
    for name in (b"halt", b"poweroff", b"reboot"):
        assert b"\0" + name + b"\0" in program
        program = program.replace(b"\0" + name + b"\0", b"\0" + name[:-1] + b"z\0")
    return program


def libraries_of(program: Path) -> tuple[Path, ...]:
    """The loader and the libraries of a real program, according to ldd."""
    listed = subprocess.run(["ldd", program], capture_output=True, check=True, text=True).stdout
    words = [word for line in listed.splitlines() for word in line.split()]
    return tuple(Path(word) for word in words if word.startswith("/"))


def install_real(fake: FakeHost, *names: str) -> None:
    """Replace the empty programs by real ones with their libraries."""
    for name in names:
        fake.write(f"/usr/bin/{name}", real(name).read_bytes(), 0o755)
        for library in libraries_of(real(name)):
            fake.write(str(library), library.read_bytes(), 0o755)
    places = sorted({str(path.parent) for name in names for path in libraries_of(real(name))})
    fake.write("/etc/ld.so.conf", "".join(f"{place}\n" for place in places))


def copy(template: FakeHost, root: Path) -> FakeHost:
    """A copy of a tree with hard links to its files; FakeHost.write never changes those."""
    shutil.copytree(template.root, root, copy_function=os.link, symlinks=True)
    return FakeHost(root)


def enable_kdump(fake: FakeHost) -> None:
    """The distribution's kdump.service, as systemctl enable leaves it."""
    fake.write("/usr/lib/systemd/system/kdump.service", "[Service]\n")
    fake.link("/etc/systemd/system/multi-user.target.wants/kdump.service",
              "/usr/lib/systemd/system/kdump.service")  # fmt: skip


UNIT = "/usr/lib/systemd/system/tinykdump.service"


def install_service(fake: FakeHost, *, enabled: bool = True) -> None:
    """tinykdump.service, and the link that starts it at boot."""
    fake.write(UNIT, (Path(SOURCE) / "systemd/tinykdump.service").read_text())
    if enabled:
        fake.link("/etc/systemd/system/multi-user.target.wants/tinykdump.service", UNIT)


def make_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make commands take the tree in TINYKDUMP_ROOT for the running machine."""

    def given(environment: Mapping[str, str]) -> Host:
        return Host(Path(environment["TINYKDUMP_ROOT"]), live=True)

    monkeypatch.setattr(Host, "given", given)
