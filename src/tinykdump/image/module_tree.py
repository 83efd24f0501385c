# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the module tree of one kernel: finds modules by name, and unpacks and parses them."""

import gzip
import hashlib
import lzma
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from tinykdump import run
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import modprobe
from tinykdump.image.modinfo import REINSTALL, ModInfo, normal, parse_modinfo, parse_module
from tinykdump.image.modprobe import Rules
from tinykdump.image.modules import CONTROLLER_ALIASES, Module, NotFoundError
from tinykdump.kernels import Kernel

SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")

# depmod's order when no file of depmod.d(5) has a "search" line: modules in updates/ take
# precedence over the kernel's own, which the order calls "built-in".
_SEARCH = ("updates", "built-in")


def unpack(data: bytes, path: Path) -> bytes:
    """The .ko inside a module file. Raises TinykdumpError when it cannot be unpacked."""
    try:
        match path.suffix:
            case ".xz":
                return lzma.decompress(data)
            case ".gz":
                return gzip.decompress(data)
            case ".zst":
                return run.run(["zstd", "-dcq"], stdin=data).stdout
            case _:
                return data
    except (lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise TinykdumpError(f"{path} cannot be unpacked: {error}", REINSTALL) from None
    except TinykdumpError as error:
        raise TinykdumpError(f"{path} cannot be unpacked: {error.message}", REINSTALL) from None


def configuration(host: Host, name: str) -> list[str]:
    """The lines of ``name``, modprobe.d(5) or depmod.d(5), in the order of the files' names.

    A file overrides those of the same name in later directories.
    """
    files: dict[str, Path] = {}
    for top in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"):
        for path in host.children(f"{top}/{name}"):
            if path.suffix == ".conf":
                files.setdefault(path.name, path)
    texts = [host.text(files[file]) or "" for file in sorted(files)]
    return [line for text in texts for line in modprobe.logical_lines(text)]


@dataclass(frozen=True)
class ModuleTree:
    """The modules of one kernel on a host."""

    host: Host
    kernel: Kernel
    # What modules say of themselves, by the SHA-256 of their files: to unpack and read them takes a
    # third of the time of a look at an image that is up to date. Known before, and of those read.
    known: Mapping[str, ModInfo] = field(default_factory=dict)
    noted: dict[str, ModInfo] = field(default_factory=dict)
    _read: dict[str, Module] = field(default_factory=dict)

    @cached_property
    def rules(self) -> Rules:
        """The rules of modprobe.d."""
        return modprobe.parse(configuration(self.host, "modprobe.d"))

    @cached_property
    def files(self) -> Mapping[str, tuple[Path, str]]:
        """Module name -> directory and name of the file that depmod would choose.

        There are thousands, so they are no paths: making those takes longer than reading the tree.
        """
        found: dict[str, tuple[Path, str]] = {}
        for directory, names in self.host.walk(self.kernel.modules):
            for name in names:
                stem, dot, suffix = name.partition(".ko")
                if dot and f".ko{suffix}" in SUFFIXES:
                    old = found.get(normal(stem))
                    if old is None or self._rank(directory) < self._rank(old[0]):
                        found[normal(stem)] = directory, name
        return found

    @cached_property
    def _search(self) -> tuple[str, ...]:
        lines = [line.split() for line in configuration(self.host, "depmod.d")]
        return tuple(n for words in lines if words[0] == "search" for n in words[1:]) or _SEARCH

    def _rank(self, directory: Path) -> int:
        """A directory's rank in depmod's order; those without a rule count as the kernel's."""
        place = directory.relative_to(self.kernel.modules)
        directories = [place, *place.parents]
        for rank, name in enumerate(self._search):
            if Path(name) in directories:
                return rank
        return self._search.index("built-in") if "built-in" in self._search else len(self._search)

    @cached_property
    def builtin(self) -> Mapping[str, Path]:
        """Built-in modules (modules.builtin): name -> path in the source."""
        lines = (self.host.text(self.kernel.modules / "modules.builtin") or "").splitlines()
        paths = (Path(line.removesuffix(".ko")) for line in lines if line)
        return {normal(path.name): path for path in paths}

    @cached_property
    def symbols(self) -> str:
        """The kernel's symbol table, a line for each: address, type, name. "" if there is none.

        Debian's System.map is a note that says which package has it.
        """
        kver = self.kernel.kver
        places = [f"{self.kernel.modules}/System.map", f"/boot/System.map-{kver}"]
        if kver == self.host.running_kernel():
            places.append("/proc/kallsyms")
        tables = (self.host.text(place) or "" for place in places)
        return next((text for text in tables if " do_one_initcall" in text), "")

    def builtin_info(self, name: str) -> ModInfo:
        """The tags of a built-in module, if the kernel's package has them.

        Before Linux 6.18, they do not include the aliases of device tables.
        """
        return parse_modinfo("\0".join(self._builtin_tags.get(normal(name), ())).encode())

    @cached_property
    def _builtin_tags(self) -> Mapping[str, list[str]]:
        """modules.builtin.modinfo: NUL-terminated name.tag=value."""
        found: dict[str, list[str]] = {}
        text = self.host.text(self.kernel.modules / "modules.builtin.modinfo") or ""
        for entry in text.split("\0"):
            name, _, tag = entry.partition(".")
            found.setdefault(normal(name), []).append(tag)
        return found

    @cached_property
    def _all_aliases(self) -> tuple[tuple[str, str], ...]:
        """Pattern and module of each line of depmod's modules.alias."""
        lines = (self.host.text(self.kernel.modules / "modules.alias") or "").splitlines()
        words = [line.split() for line in lines]
        return tuple((w[1], normal(w[2])) for w in words if len(w) == 3 and w[0] == "alias")

    @cached_property
    def aliases(self) -> Mapping[str, str]:
        """Alias -> module, for aliases that are plain names, which soft dependencies use.

        If several modules share one (crc32c), this takes the generic module, which needs no CPU
        feature.
        """
        found: dict[str, str] = {}
        for pattern, name in self._all_aliases:
            alias = normal(pattern)
            if "*" not in alias and (alias not in found or name.endswith("_generic")):
                found[alias] = name
        return found

    def lookup(self, name: str) -> Module | None:
        """The module of that name or alias; None when it is built in.

        Raises NotFoundError, and TinykdumpError for a file that cannot be read or that was
        built for another kernel.
        """
        name = next(iter(self.rules.aliased(name)), normal(name))
        if not self.has(name):
            name = self.aliases.get(name, name)
        if name in self.files:
            return self._load(name)
        if name in self.builtin:
            return None
        raise NotFoundError(
            f"module {name} is not in {self.kernel.modules}",
            "check the name, or install the package that contains it",
        )

    def _load(self, name: str) -> Module:
        if name not in self._read:
            path = Path(*self.files[name])
            data = self.host.read(path)
            digest = hashlib.sha256(data).hexdigest()
            info = self.known.get(digest) or parse_module(unpack(data, path), str(path))
            self.noted[digest] = info
            if info.kernel != self.kernel.kver and not self._is_weak(path, info):
                raise TinykdumpError(
                    f"{path} was built for kernel {info.kernel or 'unknown'}, "
                    f"not {self.kernel.kver}",
                    "rebuild or remove that module",
                )
            pre, post = self.rules.softdeps.get(name, ([], []))
            info = replace(
                info,
                softdep_pre=(*pre, *info.softdep_pre),
                softdep_post=(*info.softdep_post, *post),
            )
            self._read[name] = Module(name, path, info)
        return self._read[name]

    def _is_weak(self, path: Path, info: ModInfo) -> bool:
        """Whether a module of another kernel is one that weak-modules(8) found compatible.

        With modversions the kernel compares checksums of symbols instead of versions.
        """
        top = path.relative_to(self.kernel.modules).parts[0]
        return top == "weak-updates" and "modversions" in info.vermagic.split()

    def has(self, name: str) -> bool:
        """Whether the kernel has a module of that name, as a file or built in."""
        return normal(name) in self.files or normal(name) in self.builtin

    def drives_usb(self, name: str) -> bool:
        """Whether a module is a USB driver, judged by its directory."""
        name = normal(name)
        if name in self.files:
            return "drivers/usb" in str(self.files[name][0])
        return name in self.builtin and "drivers/usb" in str(self.builtin[name].parent)

    def usb_host_drivers(self) -> tuple[Module, ...]:
        """The drivers of USB host controllers; built-in ones have an empty path."""
        names = [name for name, (place, _) in self.files.items() if "usb/host" in str(place)]
        builtin = [name for name, path in self.builtin.items() if "usb/host" in str(path.parent)]
        return (
            *(self._candidate(name) for name in sorted(names)),
            *(self._builtin_driver(name) for name in builtin),
        )

    def watchdog_drivers(self) -> tuple[str, ...]:
        """The names of the drivers of watchdogs."""
        return tuple(
            sorted(name for name, (place, _) in self.files.items() if place.name == "watchdog")
        )

    def _candidate(self, name: str) -> Module:
        """A module that this machine may not need, so damage is not an error here.

        Its aliases then come from modules.alias; without that file, it matches every device.
        lookup() reports the damage if the module is needed.
        """
        try:
            return self._load(name)
        except TinykdumpError:
            aliases = tuple(pattern for pattern, module in self._all_aliases if module == name)
            if not self._all_aliases:
                aliases = ("*",)
            return Module(name, Path(*self.files[name]), ModInfo("", aliases=aliases))

    def _builtin_driver(self, name: str) -> Module:
        info = self.builtin_info(name)
        known = CONTROLLER_ALIASES.get(name, ())
        return Module(name, Path(), replace(info, aliases=info.aliases or known))
