# SPDX-License-Identifier: GPL-2.0-or-later
"""Read and resize the running kernel's reservation."""

import errno
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.memory import MIB, Need

# Source: Documentation/ABI/testing/sysfs-kernel-kexec-kdump. The second names are those before
# 6.19.
_SIZE = (Path("/sys/kernel/kexec/crash_size"), Path("/sys/kernel/kexec_crash_size"))
_LOADED = (Path("/sys/kernel/kexec/crash_loaded"), Path("/sys/kernel/kexec_crash_loaded"))
# Only a kernel that can grow the reservation has this file.
_SIZE_MAX = (
    Path("/sys/kernel/kexec/crash_size_max"),
    Path("/sys/kernel/kexec_crash_size_max"),
)

# For each write, the kernel tries once. After an error that can pass, tinykdump tries again, for
# PATIENCE seconds in total, with pauses that double from FIRST_PAUSE to LONGEST_PAUSE seconds.
PATIENCE = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
_CAN_PASS = (errno.ENOMEM, errno.EBUSY, errno.EINTR)

# The page cache can be moved away, but not the kernel's records of what is in it. If they are all
# over the memory, no try succeeds. So after this many seconds without success, tinykdump drops the
# caches, and again after as many. The records' memory is only free when their slabs are, too.
# Sources: Documentation/admin-guide/sysctl/vm.rst, drop_caches, and
# Documentation/ABI/testing/sysfs-kernel-slab, shrink
BEFORE_DROPPING = 10.0
_DROP_CACHES, _CACHES = Path("/proc/sys/vm/drop_caches"), "3"
_SLABS = Path("/sys/kernel/slab")


@dataclass(frozen=True)
class Reservation:
    """The running kernel's reservation."""

    size: int  # bytes; 0: none
    maximum: int  # bytes that it can grow to; 0: it can only shrink
    loaded: bool  # whether a crash kernel is in it


def read(host: Host) -> Reservation:
    """Read the reservation. Raises TinykdumpError on a kernel without kexec."""
    size = _number(host, _SIZE)
    if size is None:
        raise TinykdumpError(
            "the running kernel has no support for crash kernels",
            "run a kernel with CONFIG_CRASH_DUMP and CONFIG_KEXEC",
        )
    return Reservation(size, _number(host, _SIZE_MAX) or 0, _number(host, _LOADED) == 1)


def _number(host: Host, names: tuple[Path, ...]) -> int | None:
    text = next((text for name in names if (text := host.text(name))), None)
    return int(text) if text and text.isdigit() else None


def goal(now: Reservation, need: Need) -> int:
    """The size in bytes that the reservation should get.

    That is the need with its margin, if the reservation can be that large, otherwise its current
    size. Raises TinykdumpError if the current size is less than the need without its margin.
    """
    if need.total <= max(now.size, now.maximum):
        return need.total
    if need.minimum <= now.size:
        return now.size
    have = f"{now.size // MIB} MiB are reserved" if now.size else "no memory is reserved"
    wanted = -(-need.total // MIB)
    raise TinykdumpError(
        f"{have} for a crash kernel, {wanted} MiB are needed",
        f"add crashkernel={wanted}M to the kernel command line and reboot, "
        "or run a kernel with CONFIG_KEXEC_CMA",
    )


def resize(host: Host, size: int) -> int:
    """Resize the reservation to ``size`` bytes and return its new size. Nothing may be loaded.

    The kernel can grow the reservation only from 0, so a smaller one is returned first. Raises
    TinykdumpError if the kernel refuses. The reservation then has its old size again, or 0 if the
    kernel refuses that, too.
    """
    before, end = read(host), time.monotonic() + PATIENCE
    if not before.maximum or not 0 < before.size < size:
        return _write(host, size, end)
    _write(host, 0, end)
    try:
        return _write(host, size, end)
    except TinykdumpError:
        with suppress(TinykdumpError):
            _write(host, before.size, end)
        raise


def _write(host: Host, size: int, end: float) -> int:
    """Write ``size`` and return the new size. Try again until ``end`` (monotonic seconds).

    To grow the reservation, the kernel moves pages away. It fails if one of them is in use at that
    moment, or cannot be moved. Raises TinykdumpError.
    """
    name = next(name for name in _SIZE if host.exists(name))
    pause, drop_at = FIRST_PAUSE, time.monotonic() + BEFORE_DROPPING
    while True:
        try:
            host.write(name, str(size))
            return read(host).size
        except OSError as error:
            if error.errno not in _CAN_PASS or time.monotonic() + pause > end:
                raise _refusal(size, error) from error
            if error.errno == errno.ENOMEM and time.monotonic() >= drop_at:
                drop_at = time.monotonic() + BEFORE_DROPPING
                _drop_caches(host)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _drop_caches(host: Host) -> None:
    """Drop the caches, then the slabs that are empty now. The next try tells whether it helped."""
    # Of slabs with several names, all but one are links.
    slabs = [each for each in host.children(_SLABS) if not host.path(each).is_symlink()]
    for name, value in ((_DROP_CACHES, _CACHES), *((each / "shrink", "1") for each in slabs)):
        with suppress(OSError):  # of a sandbox, or of a kernel with other slabs
            host.write(name, value)


def _refusal(size: int, error: OSError) -> TinykdumpError:
    reasons = {
        errno.ENOENT: "a crash kernel is loaded",
        errno.EBUSY: "another program is changing it",
        errno.EINVAL: "the kernel can only make it smaller",
        errno.ENOMEM: "not enough memory could be freed",
    }
    return TinykdumpError(
        f"the reservation was not changed to {size // MIB} MiB: "
        f"{reasons.get(error.errno or 0, error.strerror)}",
        "close programs and try again, or add crashkernel= to the kernel command line",
    )
