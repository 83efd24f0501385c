# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the initramfs of guests: fills a directory tree and packs it.

build() makes the initramfs of a guest with a root file system: busybox, and the modules that the
root disk and the agent need. small() makes the tree of a guest without a root file system.
"""

import gzip
import lzma
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import fakehost
from tests.vmtest import cache

GUEST = Path(__file__).parent / "guest"

MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4")
# ext4 requests it by an alias that is not in modules.dep. Newer kernels need no module for it.
OPTIONAL = ("crc32c_generic",)

# File in GUEST -> path in the initramfs. first-init copies guest/ to the root's /run.
FILES = {
    "first-init": "init",
    "init": "guest/tinykdump-vm/init",
    "agent.py": "guest/tinykdump-vm/agent",
    "tinykdump-vm-agent.service": "guest/systemd/system/tinykdump-vm-agent.service",
}


@dataclass(frozen=True)
class Tree:
    """The tree of an initramfs; paths in it are relative to its root."""

    root: Path

    def put(self, source: Path | str, target: str) -> None:
        """Add a copy of a file, or a file with that text."""
        path = self.root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path):
            shutil.copy(source, path)
        else:
            path.write_text(source, encoding="utf-8")

    def busybox(self, program: Path) -> None:
        """Add busybox, also as the shell."""
        self.put(program, "bin/busybox")
        (self.root / "bin/sh").symlink_to("busybox")

    def program(self, name: str) -> None:
        """Add a program of the host, with its libraries."""
        self.put(fakehost.real(name), f"bin/{name}")
        for library in fakehost.libraries_of(fakehost.real(name)):
            self.put(library, str(library).lstrip("/"))

    def modules(self, order: Sequence[Path]) -> list[str]:
        """Add modules below modules/; returns their paths in the guest."""
        names = [f"modules/{path.name.split('.ko')[0]}.ko" for path in order]
        for path, name in zip(order, names, strict=True):
            (self.root / "modules").mkdir(exist_ok=True)
            # Decompressed here, because that is slow in an emulated guest.
            (self.root / name).write_bytes(module_content(path))
        return [f"/{name}" for name in names]

    def modules_at_boot(self, order: Sequence[Path]) -> None:
        """Add modules that the guest's init loads, in this order."""
        self.put("".join(f"{path}\n" for path in self.modules(order)), "modules.order")

    def pack(self, image: Path, *, compressed: bool = False) -> None:
        # fmt: off
        command = ["cpio", "--create", "--format=newc", "--null", "--quiet", "--owner=0:0",
                   "--reproducible"]
        # fmt: on
        names = sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))
        with image.open("wb") as output:
            listed = "\0".join(names).encode()
            subprocess.run(command, cwd=self.root, input=listed, stdout=output, check=True)
        if compressed:
            image.write_bytes(gzip.compress(image.read_bytes(), mtime=0))


def build(modules: Path, busybox: Path) -> Path:
    """The initramfs for the kernel of this lib/modules/KVER, built if it is not in the cache."""
    order = load_order(modules, MODULES, OPTIONAL)
    sources = [Path(__file__), *(GUEST / name for name in FILES)]
    key = cache.key([path.name for path in order], order, busybox, sources)
    return cache.entry("initrd", key, lambda entry: _build(entry, order, busybox)) / "initrd"


def _build(entry: Path, order: Sequence[Path], busybox: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        tree = Tree(Path(name))
        for directory in ("dev", "proc", "root"):
            (tree.root / directory).mkdir()
        tree.busybox(busybox)
        for source, target in FILES.items():
            tree.put(GUEST / source, target)
        tree.modules_at_boot(order)
        tree.pack(entry / "initrd")


def small(root: Path, busybox: Path, order: Sequence[Path] = ()) -> Tree:
    """A tree with the small init, which runs orders (orders.py) and loads these modules at boot."""
    tree = Tree(root)
    for directory in ("dev", "proc", "sys", "tmp"):
        (root / directory).mkdir(parents=True)
    tree.busybox(busybox)
    tree.put(GUEST / "small-init", "init")
    tree.modules_at_boot(order)
    return tree


def load_order(modules: Path, names: Sequence[str], optional: Sequence[str] = ()) -> list[Path]:
    """The files of these modules and of their dependencies, in load order."""
    depends = dict(_dependencies(modules))
    builtin = (modules / "modules.builtin").read_text(encoding="ascii").splitlines()
    present = {_name(path) for path in builtin}
    order: dict[str, None] = {}
    for name in (*optional, *names):
        if name in present or (name in optional and name not in depends):
            continue
        if name not in depends:
            raise ValueError(f"{modules} has no {name}, neither built in nor as a module")
        path, *needs = depends[name]
        # modules.dep lists every dependency, the deepest last.
        order.update(dict.fromkeys([*reversed(needs), path]))
    return [modules / path for path in order]


def _dependencies(modules: Path) -> Iterator[tuple[str, list[str]]]:
    for line in (modules / "modules.dep").read_text(encoding="ascii").splitlines():
        path, _, needs = line.partition(":")
        yield _name(path), [path, *needs.split()]


def _name(path: str) -> str:
    return Path(path).name.split(".ko")[0].replace("-", "_")


def module_content(path: Path) -> bytes:
    match path.suffix:
        case ".xz":
            return lzma.decompress(path.read_bytes())
        case ".gz":
            return gzip.decompress(path.read_bytes())
        case ".zst":
            unpack = ["zstd", "--decompress", "--stdout", "--quiet", str(path)]
            return subprocess.run(unpack, check=True, capture_output=True).stdout
    return path.read_bytes()
