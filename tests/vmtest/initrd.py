# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's first system: busybox, and the modules that the root disk and the agent need."""

import gzip
import lzma
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.vmtest import cache

GUEST = Path(__file__).parent / "guest"

MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4")
# ext4 asks for it by a name that only depmod's softdeps know. Newer kernels need no module for it.
OPTIONAL = ("crc32c_generic",)

# File of GUEST, and where it goes in the image; what is below guest/ ends up in the root's /run.
FILES = {
    "first-init": "init",
    "init": "guest/tinykdump-vm/init",
    "agent.py": "guest/tinykdump-vm/agent",
    "tinykdump-vm-agent.service": "guest/systemd/system/tinykdump-vm-agent.service",
}


def build(modules: Path, busybox: Path) -> Path:
    """The image for the kernel that this lib/modules/KVER belongs to, from the cache or new."""
    order = load_order(modules, MODULES, OPTIONAL)
    sources = [Path(__file__), *(GUEST / name for name in FILES)]
    key = cache.key([path.name for path in order], order, busybox, sources)
    return cache.entry("initrd", key, lambda entry: _build(entry, order, busybox)) / "initrd"


def _build(entry: Path, order: Sequence[Path], busybox: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        staging = Path(name)
        for directory in ("bin", "dev", "proc", "root", "modules"):
            (staging / directory).mkdir()
        shutil.copy(busybox, staging / "bin/busybox")
        (staging / "bin/sh").symlink_to("busybox")
        for source, target in FILES.items():
            (staging / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(GUEST / source, staging / target)
        for path in order:
            # Unpacked here, because the guest's processor is the slow one.
            (staging / f"modules/{_name(path.name)}.ko").write_bytes(module_content(path))
        lines = [f"/modules/{_name(path.name)}.ko\n" for path in order]
        (staging / "modules.order").write_text("".join(lines), encoding="ascii")
        _pack(staging, entry / "initrd")


def _pack(staging: Path, image: Path) -> None:
    # fmt: off
    command = ["cpio", "--create", "--format=newc", "--null", "--quiet", "--owner=0:0",
               "--reproducible"]
    # fmt: on
    names = sorted(str(path.relative_to(staging)) for path in staging.rglob("*"))
    with image.open("wb") as output:
        listed = "\0".join(names).encode()
        subprocess.run(command, cwd=staging, input=listed, stdout=output, check=True)


def load_order(modules: Path, names: Sequence[str], optional: Sequence[str] = ()) -> list[Path]:
    """The files of these modules and of what they depend on, in an order that insmod can take."""
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
