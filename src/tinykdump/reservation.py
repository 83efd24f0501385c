# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory that the running kernel holds for a crash kernel, read and made to fit."""

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.memory import MIB, Need

# Documentation/ABI/testing/sysfs-kernel-kexec-kdump; the second one is its name before 6.19.
_SIZE = (Path("/sys/kernel/kexec/crash_size"), Path("/sys/kernel/kexec_crash_size"))
_LOADED = (Path("/sys/kernel/kexec/crash_loaded"), Path("/sys/kernel/kexec_crash_loaded"))
# Only a kernel that can grow its reservation has this file.
_SIZE_MAX = Path("/sys/kernel/kexec/crash_size_max")

# Seconds between the tries to grow, and what another try can help with.
_PAUSES = (0.1, 0.2, 0.4, 0.8)
_PASSING = (errno.ENOMEM, errno.EBUSY, errno.EINTR)


@dataclass(frozen=True)
class Reservation:
    """The state of the running kernel's reservation."""

    size: int  # bytes; 0: none
    maximum: int  # bytes that it can grow to; 0: it can only shrink
    loaded: bool  # whether a crash kernel is in it


def read(host: Host) -> Reservation:
    """The reservation now. Raises TinykdumpError on a kernel without kexec."""
    size = _number(host, _SIZE)
    if size is None:
        raise TinykdumpError(
            "the running kernel has no support for crash kernels",
            "run a kernel with CONFIG_CRASH_DUMP and CONFIG_KEXEC",
        )
    return Reservation(size, _number(host, (_SIZE_MAX,)) or 0, _number(host, _LOADED) == 1)


def _number(host: Host, names: tuple[Path, ...]) -> int | None:
    text = next((text for name in names if (text := host.text(name))), None)
    return int(text) if text and text.isdigit() else None


def goal(now: Reservation, need: Need) -> int:
    """The size in bytes that the reservation is to have.

    That is the need with its margin where the reservation has it or can grow to it, and else
    what there is, as long as it holds the need. Raises TinykdumpError when it does not.
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
    """Make the reservation ``size`` bytes large while nothing is loaded; the new size.

    Growing moves other people's pages away and can fail for a moment: it is tried again with
    growing pauses, at last with no page waiting to be written. With a machine's memory in use
    that can take minutes: the kernel looks for a place for half a minute or more each time.
    Raises TinykdumpError when the kernel refuses. The reservation is then as it was, or, where
    the kernel had to give it up and could not have it again, smaller.
    """
    name = next(name for name in _SIZE if host.exists(name))
    failure = OSError()
    for _ in _tries():
        try:
            host.write(name, str(size))
            return read(host).size
        except OSError as error:
            failure = error
            if error.errno not in _PASSING:
                break
    raise _refusal(size, failure)


def _tries() -> Iterator[None]:
    """One item for each try, which waits for what may help before all but the first."""
    yield
    for pause in _PAUSES:
        time.sleep(pause)
        yield
    os.sync()
    yield


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
