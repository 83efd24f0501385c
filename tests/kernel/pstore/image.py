"""A small initramfs: busybox, kexec, the kernel's modules, and an init that obeys orders."""

import gzip
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Loaded, in this order, at each boot of a kernel that does not have them built in.
MODULES = ("watchdog", "i6300esb", "lkdtm", "efivarfs")
# Loaded by a test when it is time, and not before.
BACKENDS = (
    "reed_solomon", "ramoops", "efi-pstore", "pstore_zone", "pstore_blk",
    "virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
)  # fmt: skip

# One order is a line of base64; the answer is a line with the exit status and
# the output, in base64 too, so that no terminal setting can change either.
INIT = """#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
for module in {modules}; do
    [ -e /modules/$module.ko ] && insmod /modules/$module.ko
done
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
role=normal
[ -e /proc/vmcore ] && role=crash
echo "hello $role" >&3
while read -r order <&3; do
    echo "$order" | base64 -d >/order
    sh /order >/answer 2>&1 </dev/null 3>&-
    echo "$? $(base64 /answer | tr -d '\\n')" >&3
done
"""


@dataclass(frozen=True)
class Entry:
    name: str
    mode: int
    data: bytes = b""


def _header(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head + b"\0" * (-len(head) % 4)


def cpio(entries: list[Entry]) -> bytes:
    """A newc archive, see Documentation/driver-api/early-userspace/buffer-format.rst."""
    parts = []
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", 0)], 1):
        parts += [_header(number, entry), entry.data, b"\0" * (-len(entry.data) % 4)]
    return b"".join(parts)


def _libraries(program: Path) -> list[Path]:
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", done.stdout)]


def _program(name: str) -> Path:
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
    if not found:
        raise FileNotFoundError(f"{name} is not installed")
    return Path(found)


def _modules(kernel: Path) -> list[Entry]:
    wanted = {name.replace("-", "_") for name in (*MODULES, *BACKENDS)}
    found = sorted((kernel / "lib/modules").rglob("*.ko"))
    return [
        Entry(f"modules/{path.name}", stat.S_IFREG | 0o644, path.read_bytes())
        for path in found
        if path.stem.replace("-", "_") in wanted
    ]


def _entries(kernel: Path) -> list[Entry]:
    directory = stat.S_IFDIR | 0o755
    program = stat.S_IFREG | 0o755
    kexec = _program("kexec")
    libraries = _libraries(kexec)
    names = {"bin", "crash", "dev", "modules", "proc", "pstore", "sys", "tmp"}
    for library in libraries:
        names |= {str(parent).lstrip("/") for parent in library.parents if parent != Path("/")}
    return [
        *(Entry(name, directory) for name in sorted(names)),
        Entry("dev/console", stat.S_IFCHR | 0o600),
        Entry("init", program, INIT.format(modules=" ".join(MODULES)).encode()),
        Entry("bin/busybox", program, _program("busybox").read_bytes()),
        Entry("bin/sh", stat.S_IFLNK | 0o777, b"busybox"),
        Entry("bin/kexec", program, kexec.read_bytes()),
        *(Entry(str(path).lstrip("/"), program, path.read_bytes()) for path in libraries),
        *_modules(kernel),
    ]


def build(kernel: Path) -> bytes:
    """For the first kernel; what it loads for a crash is in it."""
    file = stat.S_IFREG | 0o644
    entries = _entries(kernel)
    crash = [
        Entry("crash/kernel", file, (kernel / "vmlinuz").read_bytes()),
        Entry("crash/initrd", file, gzip.compress(cpio(entries), compresslevel=6, mtime=0)),
    ]
    return gzip.compress(cpio([*entries, *crash]), compresslevel=1, mtime=0)
