# SPDX-License-Identifier: GPL-2.0-or-later
"""pstore on this machine: its backend, and the records that a crash kernel left in it."""

from pathlib import Path

from tinykdump import crashlog
from tinykdump.crashlog import CrashLog, Record
from tinykdump.host import Host

# systemd-pstore(8) moves every record from the first place to the second one at boot.
_MOUNT = Path("/sys/fs/pstore")
_ARCHIVE = Path("/var/lib/systemd/pstore")

# Backend, as /sys/module/pstore/parameters/backend says it -> the module that it may be in.
_MODULES = {"ramoops": "ramoops", "efi_pstore": "efi_pstore"}

# What two kernels have to agree on to share a region (Documentation/admin-guide/ramoops.rst).
_RAMOOPS = (
    "mem_address", "mem_size", "mem_type", "record_size", "console_size", "ftrace_size",
    "pmsg_size", "kexec_console_size", "max_reason", "ecc",
)  # fmt: skip

# A kernel without the record type of its own for crash kernels writes dmesg records at the end
# of every boot when it is told to.
_WITHOUT_TYPE = ("printk.always_kmsg_dump=1", "pstore.kmsg_bytes=32768")


def _backend(host: Host) -> str:
    text = host.text("/sys/module/pstore/parameters/backend") or ""
    return "" if text == "(null)" else text


def modules(host: Host) -> tuple[str, ...]:
    """The module of the backend in use; none where pstore has no backend."""
    name = _MODULES.get(_backend(host))
    return (name,) if name else ()


def parameters(host: Host, kernel_config: str) -> tuple[str, ...]:
    """What a crash kernel with that .config is told, so that what it logs is kept."""
    backend = _backend(host)
    if not backend:
        return ()
    words = []
    if backend == "ramoops":
        for name in _RAMOOPS:
            value = host.text(f"/sys/module/ramoops/parameters/{name}") or ""
            if value.lstrip("-").isdigit() and int(value) > 0:
                words.append(f"ramoops.{name}={value}")
    if "CONFIG_PSTORE_KEXEC_CONSOLE=y" not in kernel_config.splitlines():
        words += _WITHOUT_TYPE
    return tuple(words)


def crash_log(host: Host) -> CrashLog | None:
    """What the last crash kernel said, as far as pstore or its archive has it."""
    for place in (_MOUNT, _ARCHIVE):
        found = crashlog.newest(_records(host, place))
        if found is not None:
            return found
    return None


def _records(host: Host, place: Path) -> list[Record]:
    found = []
    for directory, names in host.walk(place):
        for name in names:
            path = directory / name
            if name.startswith(("kexec-console-", "dmesg-")) and not host.path(path).is_symlink():
                time = host.path(path).stat().st_mtime
                found.append(Record(name, time, host.text(path) or ""))
    return found
