# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the kernel source: in a given tarball, the cache, kernel.org or Debian's archive."""

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel.releases import NEWEST, Release
from kernel.run import KernelError, output, say

KERNEL_ORG = "https://cdn.kernel.org/pub/linux/kernel"
# A build behind a firewall should not wait long for kernel.org.
PROBE_SECONDS = 10
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Source:
    # 7.2.13
    version: str
    archive: Path
    sha256: str


_OTHER = "set TINYKDUMP_KERNEL_SOURCE to another tarball"


class NoSourceError(KernelError):
    """No place has the source."""


def given_tarball() -> Path | None:
    """The tarball that TINYKDUMP_KERNEL_SOURCE names."""
    name = os.environ.get("TINYKDUMP_KERNEL_SOURCE")
    return Path(name) if name else None


def version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def newest(names: list[str], series: str) -> list[str]:
    """The versions of `series` (7.2) that occur in `names`, newest first, each once."""
    pattern = re.compile(rf"(?<![\d.]){re.escape(series)}(?:\.\d+)?(?![\d.]*\d|~)")
    found = {match[0] for name in names for match in [pattern.search(name)] if match}
    return sorted(found, key=version_key, reverse=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def version_in(makefile: str) -> str | None:
    """The version in a kernel's Makefile; None if it has none or is an -rc. Pure."""
    stated = dict(
        re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) =[ ]*(.*)$", makefile, re.M)
    )
    if stated.get("EXTRAVERSION") != "" or not stated.get("VERSION", "").isdigit():
        return None
    numbers = [stated["VERSION"], stated["PATCHLEVEL"]]
    return ".".join([*numbers, *([stated["SUBLEVEL"]] if stated["SUBLEVEL"] != "0" else [])])


def _version_of(archive: Path) -> str:
    """The version in the tarball's Makefile; its directory may be named after the series only."""
    version = None
    try:
        with tarfile.open(archive) as tar:
            found = (member for member in tar if re.fullmatch(r"[^/]+/Makefile", member.name))
            makefile = next(found, None)
            content = tar.extractfile(makefile) if makefile else None
            version = version_in(content.read().decode()) if content else None
    except (OSError, tarfile.TarError) as error:
        raise KernelError(f"{archive} cannot be read: {error}", _OTHER) from error
    if not version:
        raise KernelError(f"{archive} is not a tarball of a Linux release", _OTHER)
    return version


def _describe(archive: Path) -> Source:
    return Source(_version_of(archive), archive, _sha256(archive))


def _download(url: str, target: Path) -> None:
    partial = target.with_suffix(".partial")
    # The address begins with KERNEL_ORG, so urllib cannot open a local file here.
    with (
        urllib.request.urlopen(url, timeout=PROBE_SECONDS) as reply,  # noqa: S310
        partial.open("wb") as stream,
    ):
        shutil.copyfileobj(reply, stream)
    partial.rename(target)


def _from_kernel_org(release: Release, directory: Path) -> Path:
    series = release.name
    base = f"{KERNEL_ORG}/v{series.split('.', maxsplit=1)[0]}.x"
    try:
        # As in _download(), this cannot open a local file.
        with urllib.request.urlopen(f"{base}/sha256sums.asc", timeout=PROBE_SECONDS) as reply:  # noqa: S310
            sums = dict(
                reversed(line.split())
                for line in reply.read().decode().splitlines()
                if line.endswith(".tar.xz")
            )
        versions = newest([name for name in sums if name.startswith("linux-")], series)
        if not versions:
            raise NoSourceError(f"kernel.org has no {series}")
        name = f"linux-{versions[0]}.tar.xz"
        say(f"downloading {name} from kernel.org")
        _download(f"{base}/{name}", directory / name)
    except (urllib.error.URLError, OSError) as error:
        raise NoSourceError("kernel.org cannot be reached") from error
    if _sha256(directory / name) != sums[name]:
        (directory / name).unlink()
        raise KernelError(f"{name} does not match its checksum on kernel.org", "try again")
    return directory / name


def debian_archive(texts: list[str]) -> str | None:
    """The address of a Debian archive in apt's sources files. Pure."""
    one_line = re.compile(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+/debian)/?\s", re.MULTILINE)
    deb822 = re.compile(r"^URIs:\s*(\S+/debian)/?\s*$", re.MULTILINE)
    for text in texts:
        for pattern in (deb822, one_line):
            if match := pattern.search(text):
                return match[1]
    return None


def _apt_sources() -> Iterator[str]:
    root = Path("/etc/apt")
    files = [root / "sources.list", *sorted((root / "sources.list.d").glob("*.sources"))]
    for file in [*files, *sorted((root / "sources.list.d").glob("*.list"))]:
        if file.is_file():
            yield file.read_text()


def _private_apt(archive: str, suites: str, directory: Path) -> list[str]:
    """Options that make apt read these suites without changing the machine's own setup."""
    for name in ("sources", "lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "sources/linux.sources").write_text(
        f"Types: deb deb-src\nURIs: {archive}\nSuites: {suites}\n"
        f"Components: main\nSigned-By: {DEBIAN_KEYRING}\n"
    )
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": f"{directory}/sources",
        "Dir::State::Lists": f"{directory}/lists",
        "Dir::Cache": f"{directory}/cache",
        # apt's own user cannot read a cache in a home directory.
        "APT::Sandbox::User": "root",
        # Signatures of unreleased suites are valid for a week only, and a mirror may be older.
        # apt still verifies them.
        "Acquire::Check-Valid-Until": "false",
        # By default, apt only warns about lists that it cannot download.
        "APT::Update::Error-Mode": "any",
    }
    return [f"-o{name}={value}" for name, value in options.items()]


def _debian(suites: str, directory: Path) -> list[str]:
    """Download the lists of these suites of Debian; returns apt's options for them."""
    archive = debian_archive(list(_apt_sources()))
    if not archive or not shutil.which("apt-get"):
        raise NoSourceError("apt on this machine has no Debian archive")
    apt = _private_apt(archive, suites, directory / f"apt-{suites.replace(' ', '-')}")
    try:
        output(["apt-get", *apt, "update"])
    except KernelError as error:
        raise NoSourceError("Debian's archive cannot be reached") from error
    return apt


def _versions(shown: str, series: str) -> list[str]:
    """The versions of the packages that belong to that series, newest first. Pure."""
    packages = re.findall(r"^Version: (\S+)$", shown, re.MULTILINE)
    return [
        next(name for name in packages if name.startswith(f"{version}-"))
        for version in newest(packages, series)
    ]


def _from_binary_package(release: Release, directory: Path) -> Path:
    """Debian's newest package linux-source-X.Y, which has Debian's patches."""
    apt = _debian(release.suites, directory)
    package = f"linux-source-{release.name}"
    try:
        shown = output(["apt-cache", *apt, "show", package])
        version = _versions(shown, release.name)[0]
        say(f"downloading {package} {version} from Debian's archive")
        with tempfile.TemporaryDirectory(dir=directory) as name:
            unpacked = Path(name)
            output(["apt-get", *apt, "download", f"{package}={version}"], cwd=unpacked)
            (deb,) = unpacked.glob("*.deb")
            output(["dpkg-deb", "--extract", deb, unpacked])
            target = directory / f"linux-source-{version.partition('-')[0]}.tar.xz"
            return (unpacked / f"usr/src/{package}.tar.xz").rename(target)
    except (KernelError, IndexError, OSError) as error:
        raise NoSourceError(f"Debian ({release.suites}) has no {package}") from error


def _from_source_package(release: Release, directory: Path) -> Path:
    """Debian's .orig.tar.xz, without patches, in the newest version that the pool still has."""
    apt = _debian(release.suites, directory)
    nothing = f"Debian ({release.suites}) has no source package of it"
    try:
        shown = output(["apt-cache", *apt, "showsrc", "--only-source", "linux"])
    except KernelError as error:
        raise NoSourceError(nothing) from error
    for package in _versions(shown, release.name):
        say(f"downloading the source package linux {package} from Debian's archive")
        source = ["source", "--download-only", "--tar-only", "--only-source", f"linux={package}"]
        try:
            output(["apt-get", *apt, *source], cwd=directory)
        except KernelError:
            # The index may list versions that the pool no longer has.
            continue
        return directory / f"linux_{package.partition('-')[0]}.orig.tar.xz"
    raise NoSourceError(nothing)


def newest_source_package(name: str, directory: Path) -> Path:
    """The .orig tarball of any source package of Debian, in the newest version, in `directory`.

    Raises NoSourceError if Debian's archive cannot be reached or does not have it.
    """
    pattern = f"{name}_*.orig.tar.*"
    directory.mkdir(parents=True, exist_ok=True)
    if not any(directory.glob(pattern)):
        apt = _debian(NEWEST.suites, directory)
        say(f"downloading the source package {name} from Debian's archive")
        source = ["source", "--download-only", "--tar-only", "--only-source", name]
        try:
            output(["apt-get", *apt, *source], cwd=directory)
        except KernelError as error:
            raise NoSourceError(f"Debian ({NEWEST.suites}) has no source package {name}") from error
    return max(directory.glob(pattern), key=lambda path: path.stat().st_mtime)


def _from_cache(release: Release, directory: Path) -> Path:
    archives = {
        version: path
        for path in sorted(directory.glob("linux[-_]*.tar.xz"))
        for version in newest(
            [path.name.removesuffix(".orig.tar.xz").removesuffix(".tar.xz")], release.name
        )
    }
    if not archives:
        raise NoSourceError("the cache does not have it")
    return archives[max(archives, key=version_key)]


# The places to search, in this order. Any of them may drop an old release.
Place = Callable[[Release, Path], Path]
PLACES: tuple[Place, ...] = (
    _from_cache, _from_kernel_org, _from_binary_package, _from_source_package,
)  # fmt: skip


def get_source(
    release: Release,
    directory: Path,
    given: Path | None,
    places: Sequence[Place] = PLACES,
) -> Source:
    """The newest source of a release from the first place that has one, kept in `directory`.

    `given`, a tarball, replaces the search. Raises NoSourceError with the reason of each place.
    """
    if given:
        return _describe(given.resolve())
    directory.mkdir(parents=True, exist_ok=True)
    reasons = []
    for place in places:
        try:
            return _describe(place(release, directory))
        except NoSourceError as error:
            reasons.append(str(error))
    raise NoSourceError(
        f"cannot find the source of Linux {release.name}: {', '.join(dict.fromkeys(reasons))}",
        "set TINYKDUMP_KERNEL_SOURCE to a tarball of it",
    )
