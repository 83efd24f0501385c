# SPDX-License-Identifier: GPL-2.0-or-later
"""pstore on this machine: its backend, and the records that a crash kernel left in it."""

import os
import re
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from tinykdump import crashlog
from tinykdump.crashlog import Boots, CrashLog, Record
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.run import run

# systemd-pstore(8) moves every record from the first place to the second one at boot.
_MOUNT = Path("/sys/fs/pstore")
_ARCHIVE = Path("/var/lib/systemd/pstore")
# Bytes of a record that are read: ramoops can have a zone of some MiB.
_LARGEST = 16 << 20

# Backend, as /sys/module/pstore/parameters/backend says it -> parameters of the module of that
# name which the crash kernel has to share: what two kernels have to agree on to use one region
# (Documentation/admin-guide/ramoops.rst), and what a distribution may have switched off.
_MODULES: Mapping[str, tuple[str, ...]] = {
    "ramoops": (
        "mem_address", "mem_size", "mem_type", "record_size", "console_size", "ftrace_size",
        "pmsg_size", "kexec_console_size", "max_reason", "ecc",
    ),
    "efi_pstore": ("pstore_disable", "record_size"),
}  # fmt: skip

# A kernel without the record type of its own for crash kernels writes dmesg records at the end
# of every boot when it is told to. ramoops has a limit of its own, where 0 is to follow it.
_ALWAYS_DUMP = ("printk.always_kmsg_dump=1", "pstore.kmsg_bytes=32768")
_RAMOOPS_ALWAYS_DUMP = ("ramoops.max_reason=0",)
# A kernel with the type writes it to the firmware's variables only when it is told to.
_EFI = "efi_pstore"
_EFI_TOO = ("pstore.kexec_console=efi",)
_EFI_OFF = ("efi_pstore.pstore_disable=Y",)
# crashlog.py tells by the times what is a line of its own.
_TIMES = ("printk.time=1",)


def _backend(host: Host) -> str:
    text = host.text("/sys/module/pstore/parameters/backend") or ""
    return "" if text == "(null)" else text


def _has_type(kernel_config: str) -> bool:
    return "CONFIG_PSTORE_KEXEC_CONSOLE=y" in kernel_config.splitlines()


def modules(host: Host) -> tuple[str, ...]:
    """The module of the backend in use; none where pstore has no backend, or no module for it."""
    backend = _backend(host)
    return (backend,) if backend in _MODULES else ()


def parameters(host: Host, kernel_config: str, *, efi: bool) -> tuple[str, ...]:
    """What a crash kernel with that .config is told, so that what it logs is kept.

    ``efi`` is whether it may write variables of the firmware.
    """
    backend = _backend(host)
    if not backend:
        return ()
    if backend == _EFI and not efi:
        return _EFI_OFF
    # Of several backends the first one to come is taken, which need not be the same one there.
    words = [f"pstore.backend={backend}", *_TIMES]
    for name in _MODULES.get(backend, ()):
        value = host.text(f"/sys/module/{backend}/parameters/{name}")
        if value:
            words.append(f"{backend}.{name}={value}")
    if _has_type(kernel_config):
        words += _EFI_TOO if backend == _EFI else ()
    else:
        words += _ALWAYS_DUMP
        words += _RAMOOPS_ALWAYS_DUMP if backend == "ramoops" else ()
    return tuple(words)


def description(host: Host, kernel_config: str, *, efi: bool) -> str:
    """Where a crash kernel with that .config leaves its log; empty where nothing keeps it."""
    backend = _backend(host)
    if backend == _EFI and not efi:
        return "lost: the configuration keeps it out of EFI variables (efi_log)"
    if not backend or _has_type(kernel_config):
        return backend
    return f"{backend}, unless it hangs (no CONFIG_PSTORE_KEXEC_CONSOLE: printk.always_kmsg_dump)"


def boots(host: Host) -> Boots:
    """When this machine was started, and the time before, as far as the journal knows."""
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
    """What the last crash kernel said, as far as pstore or its archive has it."""
    found = [
        record
        for place, collected in ((_MOUNT, False), (_ARCHIVE, True))
        for directory, names in host.walk(place)
        for name in filter(crashlog.is_of_interest, names)
        if (record := _record(host.path(directory / name), known, collected=collected))
    ]
    return crashlog.newest(found)


def _record(path: Path, known: Boots, *, collected: bool) -> Record | None:
    """One file; None where it is gone, is no file, or is not a crash kernel's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # systemd-pstore has just moved it; or we are not root
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
