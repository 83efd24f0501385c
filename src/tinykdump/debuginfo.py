# SPDX-License-Identifier: GPL-2.0-or-later
"""How to read a vmcore, and where the symbols of its kernel come from. Values in, text out."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tinykdump.vmcoreinfo import Info

# What tells whose kernel a version is, then the command that installs its symbols and the place
# that they are installed to.
_FEDORA = "/usr/lib/debug/lib/modules/{kver}/vmlinux"
_DEBIAN = "/usr/lib/debug/boot/vmlinux-{kver}"
_SOURCES = (
    (r"\+tinykdump", "dnf install kernel-tinykdump-debuginfo", _FEDORA),
    (r"\.(fc|el)[0-9]+", "dnf install --enablerepo='*debug*' kernel-debuginfo-{kver}", _FEDORA),
    (r"\+deb|-[0-9]+-(cloud-|rt-)?[a-z]+[0-9]+$", "apt install linux-image-{kver}-dbg", _DEBIAN),
    (r"-(generic|lowlatency)$", "apt install linux-image-unsigned-{kver}-dbgsym", _DEBIAN),
    (r"-default$", "zypper install kernel-default-debuginfo", _FEDORA),
)


def places(kver: str) -> tuple[Path, ...]:
    """Where packages install a vmlinux with symbols."""
    return tuple(Path(place.format(kver=kver)) for place in (_FEDORA, _DEBIAN))


def package(kver: str) -> str:
    """The command that installs the symbols of a kernel; empty if its distribution is unknown."""
    found = (command for pattern, command, _ in _SOURCES if re.search(pattern, kver))
    return next(found, "").format(kver=kver)


def advice(vmcore: Path, info: Info, vmlinux: Path | None) -> Iterator[str]:
    """Lines that say how to read a vmcore; ``vmlinux`` has its symbols, if they are installed."""
    kver, core = info.release, shlex.quote(str(vmcore))
    symbols = vmlinux or _expected(kver)
    yield "read it with:"
    yield f"    tinykdump report {core}"
    yield f"    crash {shlex.quote(str(symbols))} {core}"
    yield f"    drgn --core {core} --symbols {shlex.quote(str(symbols))}"
    if vmlinux:
        return
    yield f"symbols of {kver} are not installed; get them with one of:"
    if command := package(kver):
        yield f"    {command}"
    if info.build_id:
        yield f"    debuginfod-find debuginfo {info.build_id}    # prints another path of vmlinux"


def _expected(kver: str) -> Path:
    """Where the symbols will be once they are installed."""
    found = (place for pattern, _, place in _SOURCES if re.search(pattern, kver))
    return Path(next(found, _FEDORA).format(kver=kver))
