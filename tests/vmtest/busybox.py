# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds busybox as other distributions configure it, from the source package of Debian.

Their packages cannot be had here. busybox-config/ has what their configurations differ in.
"""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel import kconfig, source
from kernel.run import output
from tests.vmtest import cache

_CONFIGURATIONS = Path(__file__).parent / "busybox-config"
# Of the kernel; musl has headers only of its own.
_HEADERS = ("asm", "asm-generic", "linux", "mtd")
_HEADER_PLACES = (Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu"))


@dataclass(frozen=True)
class Flavor:
    """The static busybox of a distribution."""

    name: str
    compiler: str
    # Where the distribution has it.
    place: str


FEDORA = Flavor("fedora", "musl-gcc", "/usr/sbin/busybox")
OPENSUSE = Flavor("opensuse", "gcc", "/usr/bin/busybox-static")


def build(flavor: Flavor) -> Path:
    """The program, built if it is not in the cache. Raises NoSourceError."""
    tarball = source.newest_source_package("busybox", cache.directory() / "busybox-source")
    options = kconfig.parse((_CONFIGURATIONS / f"{flavor.name}.config").read_text())
    compiler = output([flavor.compiler, "--version"]).splitlines()[0]
    key = cache.key(tarball, flavor, options, compiler, Path(__file__))

    def make(directory: Path) -> None:
        _build(directory, tarball, flavor, options)

    return cache.entry("busybox", key, make) / "busybox"


def _build(directory: Path, tarball: Path, flavor: Flavor, options: Mapping[str, str]) -> None:
    tree = directory / "tree"
    tree.mkdir()
    _run(["tar", "--extract", "--strip-components=1", "--file", tarball], tree)
    _run(["make", "defconfig"], tree)
    config = tree / ".config"
    config.write_text(kconfig.render({**kconfig.parse(config.read_text()), **options}))
    # Answers what a changed option makes visible with the default.
    _run(["make", "oldconfig"], tree, answers="\n" * 100)
    missing = kconfig.unmet(options, kconfig.parse(config.read_text()))
    if missing:
        raise RuntimeError(f"busybox refused {', '.join(missing)}")
    headers = directory / "headers"
    headers.mkdir()
    for name in _HEADERS:
        places = (place / name for place in _HEADER_PLACES)
        (headers / name).symlink_to(next(place for place in places if place.exists()))
    own = [f"CFLAGS=-isystem {headers}"] if flavor.compiler == "musl-gcc" else []
    _run(["make", "-j2", f"CC={flavor.compiler}", *own, "busybox"], tree)
    (tree / "busybox").rename(directory / "busybox")
    cache.remove(tree)
    cache.remove(headers)


def _run(command: Sequence[str | Path], directory: Path, answers: str = "") -> None:
    done = subprocess.run(
        command, cwd=directory, input=answers, check=False, capture_output=True, text=True
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise RuntimeError(f"{command[0]} failed ({done.returncode}): {said}")
