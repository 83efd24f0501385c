# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages: ours as tools/deb builds them, one of Debian's kernels, and changed copies."""

import inspect
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rpm import repository
from tests.vmtest import cache, rootfs
from tests.vmtest.rootfs import Root

# The kernel that the tests install beside the running one.
KERNEL = "linux-image-rt-amd64"
# What Debian's kernels depend on; the real one would make an initramfs for minutes.
INITRAMFS_TOOL = """\
Package: stand-in-initramfs-tool
Version: 1
Architecture: all
Maintainer: test <test@localhost>
Provides: linux-initramfs-tool
Description: stand-in for initramfs-tools
"""


def build(checkout: Path, commit: str, output: Path) -> tuple[Path, ...]:
    """Run a checkout's tools/deb; the packages and what describes them."""
    command = ["tools/deb", commit, str(output)]
    done = subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True)
    return tuple(Path(line) for line in done.stdout.splitlines())


def binary(built: Iterable[Path]) -> Path:
    return next(path for path in built if path.suffix == ".deb")


def initramfs_tool(output: Path) -> Path:
    """The package of the stand-in."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "DEBIAN").mkdir()
        (Path(name) / "DEBIAN/control").write_text(INITRAMFS_TOOL)
        return _pack(Path(name), output / "stand-in-initramfs-tool_1_all.deb")


def changed(package: Path, output: Path, change: Callable[[Path], None]) -> Path:
    """A copy of a package with a later version, after ``change`` has edited its files."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
        change(tree)
        control = tree / "DEBIAN/control"
        lines = control.read_text().splitlines(keepends=True)
        lines = [
            line.rstrip("\n") + "+later\n" if line.startswith("Version: ") else line
            for line in lines
        ]
        control.write_text("".join(lines))
        return _pack(tree, output / f"later-{package.name.split('_')[0]}.deb")


def _pack(tree: Path, output: Path) -> Path:
    output.parent.mkdir(parents=True, exist_ok=True)
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(output)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return output


def kernel(root: Root) -> tuple[Path, ...]:
    """Debian's packages of another kernel for that root, without what it has already."""
    version = root.kver  # a newer root wants a newer kernel

    def download(status: Path, directory: Path) -> None:
        with _apt(status, directory) as apt:
            depends = apt("apt-cache", "depends", "--important", KERNEL).split()
            image = next(word for word in depends if re.match(r"linux-image-\d", word))
            apt("apt-get", "--quiet", "download", KERNEL, image, "linux-base")

    return _cached(root, download, KERNEL, version)


def packages(root: Root, *names: str) -> tuple[Path, ...]:
    """Debian's packages of these names, and those that they need, without what the root has."""

    def download(status: Path, directory: Path) -> None:
        with _apt(status, directory) as apt:
            apt("apt-get", "--quiet", "--yes", "--no-install-recommends", "--download-only",
                "--option=Debug::NoLocking=1", f"--option=Dir::Cache::archives={directory}",
                "install", *names)  # fmt: skip
        (directory / "partial").rmdir()

    return _cached(root, download, *names)


def _cached(root: Root, download: Callable[[Path, Path], None], *inputs: str) -> tuple[Path, ...]:
    status = root.tree / "var/lib/dpkg/status"
    key = cache.key(inputs, status, inspect.getsource(download), inspect.getsource(_apt))
    entry = cache.entry("deb", key, lambda directory: download(status, directory))
    return tuple(sorted(entry.glob("*.deb")))


@contextmanager
def _apt(status: Path, directory: Path) -> Iterator[Callable[..., str]]:
    """A function that runs a tool of apt in a directory, for a root with that status of dpkg."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "state/lists/partial").mkdir(parents=True)
        (place / "cache/archives/partial").mkdir(parents=True)
        suite = rootfs.Recipe().suite
        (place / "sources.list").write_text(
            f"deb [signed-by={rootfs.KEYRING}] {rootfs.mirror()} {suite} main\n"
        )
        settings = {
            "Dir::Etc::SourceList": place / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": place / "state",
            "Dir::State::status": status,
            "Dir::Cache": place / "cache",
            "Acquire::Retries": 5,
            "APT::Sandbox::User": "root",
        }
        options = [f"--option={key}={value}" for key, value in settings.items()]

        def apt(tool: str, *words: str) -> str:
            command = [tool, *options, *words]
            return subprocess.run(command, cwd=directory, check=True, stdout=subprocess.PIPE,
                                  text=True).stdout  # fmt: skip

        apt("apt-get", "--quiet", "update")
        yield apt


def disk(packages: Iterable[Path], image: Path) -> Path:
    """An ext4 image with the packages, as an archive for apt."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        for package in packages:
            (tree / package.name).symlink_to(package)
        index = subprocess.run(["dpkg-scanpackages", "--multiversion", "."], cwd=tree, check=True,
                               capture_output=True).stdout  # fmt: skip
        for package in packages:
            (tree / package.name).unlink()
            subprocess.run(["cp", "--reflink=auto", package, tree], check=True)
        (tree / "Packages").write_bytes(index)
        size = sum(path.stat().st_size for path in tree.iterdir()) >> 20
        rootfs.make_image(tree, image, size_mib=2 * size + 64)
    return image


def work_tree(output: Path) -> tuple[Path, ...]:
    """The packages of what is in the work tree now."""
    return build(repository.REPOSITORY, repository.work_tree(), output)


def of_the_guests(name: str) -> Path:
    """A package of which the guests' root was made, from the cache beside it."""
    return max((cache.directory() / "debs" / rootfs.Recipe().suite).glob(f"{name}_*.deb"),
               key=lambda path: path.stat().st_mtime)  # fmt: skip
