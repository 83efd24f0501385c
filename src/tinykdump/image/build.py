# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the image of one kernel: plan, check, pack."""

import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from tinykdump import __version__, hardware, keys, mounts, pstore
from tinykdump.clock import zone_of_hardware
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import (
    archive,
    drivers,
    entries,
    handover,
    manifest,
    packages,
    programs,
    screens,
)
from tinykdump.image.cmdline import crash_cmdline, encrypts_memory, fewer_levels
from tinykdump.image.drivers import NOTHING, Seen
from tinykdump.image.entries import Entry
from tinykdump.image.manifest import Manifest
from tinykdump.image.modinfo import ModInfo
from tinykdump.image.module_tree import ModuleTree
from tinykdump.image.modules import Module
from tinykdump.image.screens import Screens
from tinykdump.kernels import Kernel
from tinykdump.run import run

_EMPTY_DIRECTORIES = ("/dev", "/proc", "/sys", "/run", "/mnt", "/tmp")  # noqa: S108 - in the image


@dataclass(frozen=True)
class Draft:
    """Everything that determines an image: all inputs are read, but nothing is packed yet."""

    kernel: Kernel
    entries: tuple[Entry, ...]
    modules: tuple[Module, ...]
    key: str  # fingerprint; empty: dumps are not encrypted
    target: str
    compression: str
    cmdline: str
    margin: int  # percent
    filesystems: tuple[str, ...]
    draws: bool  # whether the crash kernel has a copy of the screen in memory
    filesystem_bytes: tuple[int, ...]  # what each of them adds to the image
    undriven: tuple[str, ...]  # devices of this machine without a driver
    watchdogs: tuple[str, ...]  # modules of those that are running, or were earlier
    noted: Mapping[str, ModInfo]  # what modules say that were read, also others than the image's

    @property
    def digest(self) -> str:
        """Equal digests mean equal images."""
        return manifest.plan_digest(self.entries, self.compression)

    @property
    def settings(self) -> str:
        """A digest of what the administrator decides, and not the packages."""
        places = (handover.CONFIGURATION, handover.KEY, handover.SCRIPT)
        return manifest.plan_digest([entry for entry in self.entries if entry.path in places])


def draft(
    host: Host, config: Config, kernel: Kernel, seen: Seen = NOTHING, *, make_key: bool = True,
    known: Mapping[str, ModInfo] = MappingProxyType({}),
) -> Draft:  # fmt: skip
    """Plan the image of a kernel: read and check every input, and write no image.

    ``known`` is what modules say, by their sums: those are not read again. Creates the machine's
    own key if dumps are to be encrypted, no key is configured, and the machine, if it runs, has
    none yet. Without ``make_key``, such a draft has no key, and no image must be made of it. Raises
    TinykdumpError.
    """
    tree = ModuleTree(host, kernel, known)
    shown = _screens(tree)
    cmdline = _cmdline(host, config, kernel, shown)
    _refuse_encrypted_memory(kernel, cmdline)
    chosen = drivers.needed(host, config, tree, cmdline, seen)
    config = replace(config, filesystems=chosen.filesystems)
    _refuse_root(host, config)
    machine = _machine(host)
    key = None
    if config.encrypt and config.key:
        key = keys.configured(config.key, host)
    elif config.encrypt and (make_key or host.exists(keys.MACHINE_KEYS)):
        # A key that is made in an image of a system would be that of every machine.
        key = keys.machine_key(host, create=make_key and host.live)
    userland = programs.userland(host, config, encrypt=config.encrypt)
    # Of other keys, gpg sees by itself whether their owners can decrypt OCB. To the machine's own
    # key, this gpg encrypts and decrypts; Debian's does not say in a key what it can decrypt.
    own = key is not None and not config.key and not keys.in_fips_mode(host)
    conf = handover.render(
        config, machine=machine, key_time=key.valid_at if key else "",
        ocb=programs.ocb(userland) if own else "", version=__version__,
    )  # fmt: skip
    files = drivers.files(host, chosen)
    sizes = {entry.source: len(entry.content) for entry in files}
    planned = entries.plan(
        (
            *files,
            *userland,
            *(entries.directory(path) for path in _EMPTY_DIRECTORIES),
            entries.file(handover.CONFIGURATION, conf.encode()),
            *([entries.file(handover.KEY, key.public)] if key else []),
        )
    )
    return Draft(
        kernel=kernel,
        entries=planned,
        modules=chosen.modules,
        key=key.fingerprint if key else "",
        target=str(config.target),
        compression=archive.compressor(kernel.config),
        cmdline=cmdline,
        margin=config.margin,
        filesystems=chosen.filesystems,
        filesystem_bytes=tuple(
            sum(sizes[str(module.path)] for module in chosen.filesystem_modules[name])
            for name in chosen.filesystems
        ),
        undriven=chosen.undriven,
        watchdogs=chosen.watchdogs,
        draws=shown.stays,
        noted=tree.noted,
    )


def _refuse_root(host: Host, config: Config) -> None:
    if str(config.target) in mounts.root_tags(host):
        raise TinykdumpError(
            f"{config.target} is the running root file system", "name a stick as target"
        )


def _refuse_encrypted_memory(kernel: Kernel, command: str) -> None:
    """An installed kernel that does not know the parameter did not encrypt its memory either."""
    lacks_it = kernel.config and "CONFIG_AMD_MEM_ENCRYPT=y" not in kernel.config.splitlines()
    if kernel.apart and lacks_it and encrypts_memory(command):
        raise TinykdumpError(
            f"kernel {kernel.kver} cannot read memory that is encrypted (mem_encrypt=on)",
            "set kernel = installed in [image]",
        )


def _machine(host: Host) -> handover.Machine:
    uuids = [tag for tag in mounts.root_tags(host) if tag.startswith("UUID=")]
    root_uuid = uuids[0].removeprefix("UUID=") if uuids else ""
    adjtime, localtime = host.text("/etc/adjtime") or "", host.text("/etc/localtime") or ""
    zone = zone_of_hardware(adjtime, localtime)
    return handover.Machine(hardware.machine_name(host), root_uuid, zone)


def build(host: Host, planned: Draft, below: Path) -> tuple[Manifest, bytes]:
    """Check that the programs of a planned image run, pack it, and return manifest and image.

    ``below`` is the directory on the host for the staged tree. Raises TinykdumpError.
    """
    with archive.staged(planned.entries, host.path(below)) as top:
        if host.live:
            _try_programs(top)
        packed = archive.pack(planned.entries, top, planned.compression)
    made = replace(
        _manifest(planned, len(packed)),
        inputs=_inputs(planned.entries, packages.owner_lookup(host)),
        sha256=hashlib.sha256(packed).hexdigest(),
    )
    return made, packed


def sketch(planned: Draft) -> Manifest:
    """The manifest of a planned image, without what only packing tells.

    Its packed size is what zlib, file by file, makes of it. Any compressor of an image does better.
    """
    return _manifest(planned, sum(len(zlib.compress(entry.content)) for entry in planned.entries))


def _manifest(planned: Draft, packed: int) -> Manifest:
    """The manifest of a planned image that has ``packed`` bytes, without its inputs and its sum."""
    return Manifest(
        kver=planned.kernel.kver,
        kernel=str(planned.kernel.image),
        plan=planned.digest,
        modules=tuple(module.name for module in planned.modules),
        inputs=(),
        key=planned.key,
        target=planned.target,
        compression=planned.compression,
        cmdline=planned.cmdline,
        margin=planned.margin,
        packed=packed,
        unpacked=entries.unpacked_size(planned.entries),
        drivers=sum(module.info.size for module in planned.modules),
        filesystems=planned.filesystems,
        apart=planned.kernel.apart,
        undriven=planned.undriven,
        watchdogs=planned.watchdogs,
        settings=planned.settings,
        draws=planned.draws,
        filesystem_bytes=planned.filesystem_bytes,
    )


def _screens(tree: ModuleTree) -> Screens:
    found = screens.screens(tree.builtin, tree.kernel.config, "")
    # The symbol table has 10 MB; most distributions have none of these drivers built in.
    if not (found.left_out or found.stays):
        return found
    return screens.screens(tree.builtin, tree.kernel.config, tree.symbols)


def _cmdline(host: Host, config: Config, kernel: Kernel, found: Screens) -> str:
    kept = pstore.parameters(host, kernel.config, efi=config.efi_log) if host.live else ()
    running = host.text("/proc/cmdline") or ""
    levels = fewer_levels(kernel.architecture, host.text("/proc/iomem") or "")
    more = (*kept, *screens.parameters(found), *levels)
    return crash_cmdline(kernel.architecture, running, config.append, more)


def _try_programs(top: Path) -> None:
    """Run the image's programs in its tree, as the crash side will."""
    check = next(path / "check" for path in programs.CRASH_SIDE if (path / "check").exists())
    run(
        ["unshare", "--mount", "--propagation", "private", "sh", check, top],
        hint="the image's programs do not run; reinstall busybox, makedumpfile and gpg",
    )


def _inputs(entries: tuple[Entry, ...], owner: Callable[[str], str]) -> tuple[manifest.Input, ...]:
    return tuple(
        manifest.Input(entry.source, entry.digest, owner(entry.source))
        for entry in entries
        if entry.source
    )


def is_current(planned: Draft, old: Manifest) -> bool:
    """Whether ``old`` describes the same image as ``planned``."""
    same = (
        "cmdline", "margin", "filesystems", "filesystem_bytes", "draws", "undriven", "watchdogs",
        "settings",
    )  # fmt: skip
    kernel = (planned.digest, str(planned.kernel.image), planned.kernel.apart)
    return (old.plan, old.kernel, old.apart) == kernel and all(
        getattr(old, name) == getattr(planned, name) for name in same
    )


def fits(planned: Draft, old: Manifest) -> bool:
    """Whether ``old`` was made for the same settings, and for all the devices that are there now.

    Its programs may be older.
    """
    same = ("cmdline", "margin", "filesystems", "settings")
    return (
        {module.name for module in planned.modules} <= {*old.modules}
        and {*planned.undriven} <= {*old.undriven}
        and all(getattr(old, name) == getattr(planned, name) for name in same)
    )
