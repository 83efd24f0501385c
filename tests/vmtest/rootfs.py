# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's root file system: Debian with its kernel, as an ext4 image.

The packages come from the mirror that apt on the host uses. The cache also keeps the directory
tree, so that benchmarks can use it on the host.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.vmtest import accel, cache, initramfs
from tests.vmtest.machine import X86_64, Disk, Machine, Platform

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# What tinykdump and its tests need on Debian, without initramfs-tools: the kernel package depends
# on that, so it is unpacked but not installed.
PACKAGES = (
    "busybox-static", "cpio", "dosfstools", "e2fsprogs", "exfatprogs", "fdisk", "gnupg",
    "kexec-tools", "kmod", "makedumpfile", "python3", "python3-gnupg", "python3-pyelftools",
    "python3-rpm", "systemd", "udev", "util-linux", "xz-utils", "zstd",
)  # fmt: skip

# Not needed in a guest. Copyright files may go, too, because the image is not distributed.
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")

UNRELEASED = ("forky", "sid")

# Increase this when _build() changes in other ways than its commands.
FORMAT = 1

# The small init, or systemd with the agent as a unit.
SMALL: tuple[str, ...] = ()
SYSTEMD = ("init=/usr/lib/systemd/systemd", "systemd.wants=tinykdump-vm-agent.service")


@dataclass(frozen=True)
class Recipe:
    suite: str = "trixie"
    packages: tuple[str, ...] = PACKAGES
    kernel: str = "linux-image-amd64"
    # The image is sparse, and so is the overlay that a guest writes to.
    size_mib: int = 4096


@dataclass(frozen=True)
class Root:
    """A root file system in the cache."""

    directory: Path
    platform: Platform = X86_64

    @property
    def image(self) -> Path:
        return self.directory / "root.img"

    @property
    def tree(self) -> Path:
        return self.directory / "tree"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def modules(self) -> Path:
        return self.tree / "usr/lib/modules" / self.kver

    @property
    def busybox(self) -> Path:
        return self.tree / "usr/bin/busybox"

    @property
    def kver(self) -> str:
        return (self.directory / "kver").read_text(encoding="ascii").strip()

    def machine(self, *append: str, init: tuple[str, ...] = SMALL, **changes: Any) -> Machine:
        """A machine that boots this root file system; `changes` are fields of Machine."""
        # On a busy host under TCG, a virtual CPU can pause longer than the kernel's watchdogs
        # and timer check tolerate: "IO-APIC + timer doesn't work!" is a panic.
        console = f"console={self.platform.console}"
        usual = (console, "nowatchdog", "no_timer_check", "panic=5")
        first = initramfs.build(self.modules, self.busybox)
        is_foreign = self.platform != X86_64
        fields: dict[str, Any] = {
            "kernel": self.kernel,
            "initrd": first,
            "platform": self.platform,
            "accel": "tcg" if is_foreign else accel.best(self.kernel, first),
            "append": (*usual, *init, *append),
            "disks": (Disk("root", self.image),),
        }
        return Machine(**fields | changes)


def build(recipe: Recipe = Recipe()) -> Root:
    """The root file system of that recipe, built if it is not in the cache."""
    # The key depends neither on the mirror nor on the place of the cache.
    commands = (
        _bootstrap_command(recipe, tree=Path("tree"), debs=Path("debs"), address="mirror"),
        _image_command(Path("tree"), Path("image"), recipe.size_mib),
    )
    key = cache.key(recipe, commands, FORMAT)
    return Root(cache.entry("root", key, lambda directory: _build(recipe, directory)))


def mirror() -> str:
    """The Debian mirror of the host."""
    # fmt: off
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)",
               "Created-By: Packages", "Component: main"]
    # fmt: on
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    for address in listed:
        # Not the security archive, which is incomplete.
        if address.rstrip("/").endswith("/debian"):
            return address
    raise RuntimeError(f"apt has no Debian archive, only {sorted(set(listed))} (add one)")


def _build(recipe: Recipe, directory: Path) -> None:
    if os.geteuid() != 0:
        raise RuntimeError("only root can build the guest's root file system (run as root)")
    tree = directory / "tree"
    debs = cache.directory() / "debs" / recipe.suite
    debs.mkdir(parents=True, exist_ok=True)
    command = _bootstrap_command(recipe, tree=tree, debs=debs, address=mirror())
    _bootstrap(command, tree)
    _unpack_kernel(recipe, tree, directory)
    make_image(tree, directory / "root.img", size_mib=recipe.size_mib)


def _bootstrap(command: Sequence[str], tree: Path, tries: int = 3) -> None:
    for left in reversed(range(tries)):
        if tree.exists():
            cache.remove(tree)
        try:
            subprocess.run(command, check=True)
            return
        except subprocess.CalledProcessError:
            # Mirrors can fail temporarily.
            if not left:
                raise


def _bootstrap_command(recipe: Recipe, *, tree: Path, debs: Path, address: str) -> list[str]:
    return [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=apt",
        "--format=directory",
        f"--keyring={KEYRING}",
        f"--include={','.join(recipe.packages)}",
        '--aptopt=Acquire::Retries "5"',
        '--aptopt=APT::Install-Recommends "false"',
        # Signatures of unreleased suites are valid for a week only, and a mirror may be older.
        # apt still verifies them.
        *(['--aptopt=Acquire::Check-Valid-Until "false"'] if recipe.suite in UNRELEASED else []),
        # After a crash, the tree is built again.
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        # Keep the downloaded packages for the next build.
        "--skip=download/empty",
        "--skip=essential/unlink",
        "--skip=cleanup/apt/cache",
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
        f"--setup-hook=sync-in '{debs}' /var/cache/apt/archives",
        '--customize-hook=chroot "$1" apt-get --quiet --yes --download-only install '
        + recipe.kernel,
        f"--customize-hook=sync-out /var/cache/apt/archives '{debs}'",
        # Keep the kernel for _unpack_kernel().
        *(
            f'--customize-hook=mv "$1"/var/cache/apt/archives/{name}-[0-9]*.deb "$1"'
            for name in _kernel_packages(recipe)
        ),
        '--customize-hook=rm -f "$1"/var/cache/apt/archives/*.deb',
        recipe.suite,
        str(tree),
        address,
    ]


def _kernel_packages(recipe: Recipe) -> tuple[str, ...]:
    """Since Debian 14, linux-image-VERSION is empty and depends on others."""
    if recipe.suite in UNRELEASED:
        return ("linux-base", "linux-binary", "linux-modules")
    return ("linux-image",)


def _unpack_kernel(recipe: Recipe, tree: Path, directory: Path) -> None:
    packages = list(tree.glob("linux-*.deb"))
    if len(packages) != len(_kernel_packages(recipe)):
        raise RuntimeError(f"{recipe.kernel} brought {len(packages)} packages: {packages}")
    with tempfile.TemporaryDirectory(dir=directory) as unpacked:
        for package in packages:
            subprocess.run(["dpkg-deb", "--extract", str(package), unpacked], check=True)
            package.unlink()
        found = list(Path(unpacked).rglob("lib/modules/*"))
        kver = next(path.name for path in found if path.is_dir())
        subprocess.run(["cp", "-a", f"{unpacked}/.", f"{tree}/"], check=True)
    subprocess.run(["depmod", "--basedir", str(tree), kver], check=True)
    places = (tree / f"boot/vmlinuz-{kver}", tree / f"usr/lib/modules/{kver}/vmlinuz")
    shutil.copy(next(place for place in places if place.exists()), directory / "vmlinuz")
    (directory / "kver").write_text(kver + "\n", encoding="ascii")


def make_image(tree: Path, image: Path, *, size_mib: int) -> None:
    """Make an ext4 image of the tree, without mounting anything."""
    subprocess.run(_image_command(tree, image, size_mib), check=True, stdout=subprocess.DEVNULL)


def _image_command(tree: Path, image: Path, size_mib: int) -> list[str]:
    return [
        "mke2fs", "-q", "-t", "ext4", "-d", str(tree),
        # Otherwise the guest's kernel initializes these during a test.
        "-E", "lazy_itable_init=0,lazy_journal_init=0", "-J", "size=16",
        str(image), f"{size_mib}M",
    ]  # fmt: skip
