# SPDX-License-Identifier: GPL-2.0-or-later
"""pstore on this machine: its backend, and the records that a crash kernel left in it."""

from collections.abc import Mapping
from pathlib import Path

from tinykdump import crashlog
from tinykdump.crashlog import CrashLog, Record
from tinykdump.host import Host

# systemd-pstore(8) moves every record from the first place to the second one at boot.
_MOUNT = Path("/sys/fs/pstore")
_ARCHIVE = Path("/var/lib/systemd/pstore")

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


def _backend(host: Host) -> str:
    text = host.text("/sys/module/pstore/parameters/backend") or ""
    return "" if text == "(null)" else text


def _has_type(kernel_config: str) -> bool:
    return "CONFIG_PSTORE_KEXEC_CONSOLE=y" in kernel_config.splitlines()


def modules(host: Host) -> tuple[str, ...]:
    """The module of the backend in use; none where pstore has no backend, or no module for it."""
    backend = _backend(host)
    return (backend,) if backend in _MODULES else ()


def parameters(host: Host, kernel_config: str) -> tuple[str, ...]:
    """What a crash kernel with that .config is told, so that what it logs is kept."""
    backend = _backend(host)
    if not backend:
        return ()
    # Of several backends the first one to come is taken, which need not be the same one there.
    words = [f"pstore.backend={backend}"]
    for name in _MODULES.get(backend, ()):
        value = host.text(f"/sys/module/{backend}/parameters/{name}")
        if value:
            words.append(f"{backend}.{name}={value}")
    if not _has_type(kernel_config):
        words += _ALWAYS_DUMP
        words += _RAMOOPS_ALWAYS_DUMP if backend == "ramoops" else ()
    return tuple(words)


def description(host: Host, kernel_config: str) -> str:
    """Where a crash kernel with that .config leaves its log; empty where nothing keeps it."""
    backend = _backend(host)
    if not backend or _has_type(kernel_config):
        return backend
    return f"{backend}, unless it hangs (no CONFIG_PSTORE_KEXEC_CONSOLE: printk.always_kmsg_dump)"


def crash_log(host: Host) -> CrashLog | None:
    """What the last crash kernel said, as far as pstore or its archive has it."""
    return crashlog.newest([*_records(host, _MOUNT), *_records(host, _ARCHIVE)])


def _records(host: Host, place: Path) -> list[Record]:
    found = []
    for directory, names in host.walk(place):
        for name in names:
            path = directory / name
            if not crashlog.is_of_interest(name) or host.path(path).is_symlink():
                continue
            text = host.text(path)
            if text is not None:  # root's only
                found.append(Record(name, host.path(path).stat().st_mtime, text))
    return found
