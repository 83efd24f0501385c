# SPDX-License-Identifier: GPL-2.0-or-later
"""pstore on this machine: its backend, and the records that a crash kernel left in it."""

import os
import re
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tinykdump import crashlog
from tinykdump.crashlog import Boots, CrashLog, Record
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.run import run

# systemd-pstore(8) moves every record from the first directory to the second one at boot.
_MOUNT = Path("/sys/fs/pstore")
_ARCHIVE = Path("/var/lib/systemd/pstore")
# The limit of a record that is read, in bytes: a zone of ramoops can have several MiB.
_LARGEST = 16 << 20

# Backend, as in /sys/module/pstore/parameters/backend -> the parameters of the module of that name
# that the crash kernel gets, too: two kernels share a region only if they agree on it
# (Documentation/admin-guide/ramoops.rst), and distributions disable some backends by default.
_MODULES: Mapping[str, tuple[str, ...]] = {
    "ramoops": (
        "mem_address", "mem_size", "mem_type", "record_size", "console_size", "ftrace_size",
        "pmsg_size", "kexec_console_size", "max_reason", "ecc",
    ),
    "efi_pstore": ("pstore_disable", "record_size"),
}  # fmt: skip

# Backend -> the option of a kernel that writes the record type for crash kernels to it.
_RECORDS = "CONFIG_PSTORE_KEXEC_CONSOLE_RECORDS"
_OPTIONS: Mapping[str, str] = {
    "ramoops": "CONFIG_PSTORE_KEXEC_CONSOLE", "erst": _RECORDS, "efi_pstore": _RECORDS,
}  # fmt: skip
# A kernel without the record type for crash kernels can write dmesg records at the end of every
# boot. ramoops has its own limit, which 0 turns off.
_ALWAYS_DUMP = ("printk.always_kmsg_dump=1", "pstore.kmsg_bytes=32768")
_RAMOOPS_ALWAYS_DUMP = ("ramoops.max_reason=0",)
# A kernel with that record type writes it to EFI variables only on request.
_EFI = "efi_pstore"
_EFI_TOO = ("pstore.kexec_console=efi",)
_EFI_OFF = ("efi_pstore.pstore_disable=Y",)
# Y with CONFIG_EFI_VARS_PSTORE_DEFAULT_DISABLE, also on a machine that has no such variables.
_EFI_SWITCH = Path("/sys/module/efi_pstore/parameters/pstore_disable")
_EFI_VARIABLES = Path("/sys/firmware/efi/efivars")
# crashlog.py needs the times to find the first line of each message.
_TIMES = ("printk.time=1",)


def _backend(host: Host) -> str:
    text = host.text("/sys/module/pstore/parameters/backend") or ""
    return "" if text == "(null)" else text


def _has_type(backend: str, kernel_config: str) -> bool:
    return f"{_OPTIONS.get(backend)}=y" in kernel_config.splitlines()


def modules(host: Host) -> tuple[str, ...]:
    """The module of the backend in use; none if there is no backend, or it has no module."""
    backend = _backend(host)
    return (backend,) if backend in _MODULES else ()


def _efi_is_off(host: Host) -> bool:
    """Whether EFI variables are all that pstore could use, and it is told not to."""
    is_there = host.exists(_EFI_VARIABLES)
    return is_there and not _backend(host) and host.text(_EFI_SWITCH) == "Y"


def turn_on_efi(host: Host) -> None:
    """Have pstore use EFI variables until the reboot, if it uses nothing and could.

    What the last crash kernel has left in them is then in pstore. systemd-pstore(8), which has
    found nothing there at boot, is started again. Raises TinykdumpError.
    """
    if not _efi_is_off(host):
        return
    try:
        host.write(_EFI_SWITCH, "N")
    except OSError as error:
        raise TinykdumpError(
            f"pstore in EFI variables cannot be turned on: {error.strerror}",
            "add efi_pstore.pstore_disable=0 to the kernel command line",
        ) from error
    with suppress(TinykdumpError):  # there is no systemd
        run(["systemctl", "--no-block", "start", "systemd-pstore.service"], check=False)


def parameters(host: Host, kernel_config: str, *, efi: bool) -> tuple[str, ...]:
    """The parameters that make pstore keep the log of a crash kernel with that .config.

    ``efi`` says whether it may write EFI variables.
    """
    backend = _backend(host)
    if not backend:
        return ()
    if backend == _EFI and not efi:
        return _EFI_OFF
    # Otherwise the first backend to register is used, which may differ in the crash kernel.
    words = [f"pstore.backend={backend}", *_TIMES]
    for name in _MODULES.get(backend, ()):
        value = host.text(f"/sys/module/{backend}/parameters/{name}")
        if value:
            words.append(f"{backend}.{name}={value}")
    if _has_type(backend, kernel_config):
        words += _EFI_TOO if backend == _EFI else ()
    else:
        words += _ALWAYS_DUMP
        words += _RAMOOPS_ALWAYS_DUMP if backend == "ramoops" else ()
    return tuple(words)


def description(host: Host, kernel_config: str, *, efi: bool) -> str:
    """Where a crash kernel with that .config leaves its log; empty: nowhere."""
    backend = _backend(host)
    if backend == _EFI and not efi:
        return "lost: the configuration keeps it out of EFI variables (efi_log)"
    if efi and _efi_is_off(host):
        return ("lost: this kernel has pstore in EFI variables turned off (set efi_pstore = yes in "
                "/etc/default/tinykdump and run tinykdump -l)")  # fmt: skip
    if not backend or _has_type(backend, kernel_config):
        return backend
    option = _OPTIONS.get(backend, _RECORDS)
    return f"{backend}, unless it hangs (no {option}: printk.always_kmsg_dump)"


def boots(host: Host) -> Boots:
    """When this boot began, and the previous one if the journal has it."""
    this = re.search(r"^btime (\d{1,12})$", host.text("/proc/stat") or "", re.MULTILINE)
    return Boots(float(this[1]) if this else time.time(), _previous_boot(host))


def _previous_boot(host: Host) -> float | None:
    argv = ["journalctl", f"--root={host.root}", "--list-boots", "--utc", "--no-pager", "--quiet"]
    try:
        done = run(argv, check=False)
    except TinykdumpError:  # not installed
        return None
    return crashlog.previous_boot(done.stdout.decode(errors="replace"))


def crash_log(host: Host, known: Boots) -> CrashLog | None:
    """The log of the last crash kernel in pstore or its archive; None if there is none."""
    found = [
        record
        for place, collected in ((_MOUNT, False), (_ARCHIVE, True))
        for directory, names in host.walk(place)
        for name in filter(crashlog.is_of_interest, names)
        if (record := _record(host.path(directory / name), known, collected=collected))
    ]
    return crashlog.newest(found)


def _record(path: Path, known: Boots, *, collected: bool) -> Record | None:
    """Read a file; returns None if it is gone, not a regular file or not from a crash kernel."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # systemd-pstore has just moved it, or the user is not root
        return None
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        try:
            data = stream.read(_LARGEST)
        except OSError:
            return None
    return crashlog.record(path.name, data, status.st_mtime, collected=collected, boots=known)
