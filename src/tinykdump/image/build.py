# SPDX-License-Identifier: GPL-2.0-or-later
"""Building the image of one kernel: plan, check, pack, publish."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinykdump import __version__, files, hardware, keys, pstore, state, stick
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import archive, drivers, entries, handover, manifest, packages, programs
from tinykdump.image.cmdline import crash_cmdline
from tinykdump.image.entries import Entry
from tinykdump.image.manifest import Manifest
from tinykdump.image.module_tree import ModuleTree
from tinykdump.image.modules import Module
from tinykdump.run import run

_EMPTY_DIRECTORIES = ("/dev", "/proc", "/sys", "/run", "/mnt", "/tmp")  # noqa: S108 - in the image


@dataclass(frozen=True)
class Draft:
    """An image that is planned and read, and not yet packed."""

    kver: str
    entries: tuple[Entry, ...]
    modules: tuple[Module, ...]
    key: keys.Key | None
    kernel: state.Kernel
    compression: str
    cmdline: str

    @property
    def digest(self) -> str:
        """Equal digests mean equal images."""
        return manifest.plan_digest(self.entries, self.compression)


def draft(host: Host, config: Config, kver: str, kernel: str = "") -> Draft:
    """Plan the image of a kernel: every input is read and checked, no image is written.

    ``kernel`` is where the kernel image is when it is in no usual place. The machine's own
    key is made when none is configured and there is none yet. Raises TinykdumpError.
    """
    state.folder(kver)  # refuses what is no version before anything is looked up by it
    tree = ModuleTree(host, kver)
    cmdline = _cmdline(host, config, kver)
    chosen = drivers.needed(host, config, tree, cmdline)
    _refuse_root(host, config)
    machine = _machine(host)
    kernel_image = state.find_kernel(host, kver, kernel)
    key = None
    if config.encrypt and config.key:
        key = keys.configured(config.key, host)
    elif config.encrypt:
        key = keys.machine_key(host, create=True)
    key_time = key.valid_at if key else ""
    conf = handover.render(config, machine=machine, key_time=key_time, version=__version__)
    planned = entries.plan(
        (
            *drivers.files(host, chosen),
            *programs.userland(host, config, encrypt=key is not None),
            *(entries.directory(path) for path in _EMPTY_DIRECTORIES),
            entries.file("/etc/tinykdump.conf", conf.encode()),
            *([entries.file("/etc/tinykdump.key", key.public)] if key else []),
        )
    )
    compression = archive.compressor(state.kernel_config(host, kver))
    return Draft(kver, planned, chosen.modules, key, kernel_image, compression, cmdline)


def _refuse_root(host: Host, config: Config) -> None:
    if str(config.target) in stick.root_tags(host):
        raise TinykdumpError(
            f"{config.target} is the running root file system", "name a stick as target"
        )


def _machine(host: Host) -> handover.Machine:
    uuids = [tag for tag in stick.root_tags(host) if tag.startswith("UUID=")]
    root_uuid = uuids[0].removeprefix("UUID=") if uuids else ""
    return handover.Machine(hardware.machine_name(host), root_uuid)


def build(host: Host, config: Config, planned: Draft) -> Manifest:
    """Pack a planned image, prove that its programs run, and publish it with its manifest.

    Raises TinykdumpError; the old image then stays as it was.
    """
    with archive.staged(planned.entries, host.path(state.RUNTIME)) as top:
        if host.is_target():
            _try_programs(top)
        packed = archive.pack(planned.entries, top, planned.compression)
    kernel = planned.kernel
    made = Manifest(
        kver=planned.kver,
        kernel=str(kernel.path),
        plan=planned.digest,
        modules=tuple(module.name for module in planned.modules),
        inputs=_inputs(planned.entries, packages.owner_lookup(host)),
        key=planned.key.fingerprint if planned.key else "",
        target=str(config.target),
        compression=planned.compression,
        cmdline=planned.cmdline,
        margin=config.margin,
        packed=len(packed),
        unpacked=entries.unpacked_size(planned.entries),
        drivers=sum(module.info.size for module in planned.modules),
        filesystems=config.filesystems,
        sha256=hashlib.sha256(packed).hexdigest(),
    )
    files.publish(
        {
            host.path(state.image_path(made)): packed,
            **({host.path(kernel.path): kernel.content} if kernel.content else {}),
            host.path(state.manifest_path(made.kver)): made.to_json().encode(),
        }
    )
    return made


def _cmdline(host: Host, config: Config, kver: str) -> str:
    kept = pstore.parameters(host, state.kernel_config(host, kver)) if host.is_target() else ()
    return crash_cmdline(host.text("/proc/cmdline") or "", config.append, kept)


def _try_programs(top: Path) -> None:
    """Run the image's programs in its tree, as the crash side will: fail now, not then."""
    check = next(path / "check" for path in programs.CRASH_SIDE if (path / "check").exists())
    run(
        ["unshare", "--mount", "--propagation", "private", "sh", check, top],
        hint="its programs do not run in the image; reinstall busybox, makedumpfile and gpg",
    )


def _inputs(entries: tuple[Entry, ...], owner: Callable[[str], str]) -> tuple[manifest.Input, ...]:
    return tuple(
        manifest.Input(entry.source, entry.digest, owner(entry.source))
        for entry in entries
        if entry.source
    )


def is_current(config: Config, planned: Draft, old: Manifest) -> bool:
    """Whether ``old`` describes just the image that ``planned`` would become."""
    return (old.plan, old.kernel, old.cmdline, old.margin, old.filesystems) == (
        planned.digest,
        str(planned.kernel.path),
        planned.cmdline,
        config.margin,
        config.filesystems,
    )
