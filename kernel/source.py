"""The pristine kernel source: from a given tarball, kernel.org or the distribution's archive."""

import hashlib
import re
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel.run import KernelError, output, say

KERNEL_ORG = "https://cdn.kernel.org/pub/linux/kernel"
# kernel.org answers at once or not at all; a build behind a firewall should not wait for it.
PROBE_SECONDS = 10
DEBIAN_SUITES = "sid forky"
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Source:
    # 7.2.13
    version: str
    archive: Path
    sha256: str


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


def _version_of(archive: Path) -> str:
    """What the tarball itself says in its first directory's name."""
    with tarfile.open(archive) as tar:
        first = tar.next()
    match = re.match(r"linux-(\d+\.\d+(?:\.\d+)?)(?:/|$)", first.name if first else "")
    if not match:
        raise KernelError(f"{archive} is no linux-X.Y.Z tarball")
    return match[1]


def _describe(archive: Path) -> Source:
    return Source(_version_of(archive), archive, _sha256(archive))


def _download(url: str, target: Path) -> None:
    partial = target.with_suffix(".partial")
    # Addresses begin with KERNEL_ORG, so urllib's other schemes can not be reached.
    with (
        urllib.request.urlopen(url, timeout=PROBE_SECONDS) as reply,  # noqa: S310
        partial.open("wb") as stream,
    ):
        shutil.copyfileobj(reply, stream)
    partial.rename(target)


def _from_kernel_org(series: str, directory: Path) -> Path | None:
    base = f"{KERNEL_ORG}/v{series.split('.', maxsplit=1)[0]}.x"
    try:
        # See _download() for why this is no way to a local file.
        with urllib.request.urlopen(f"{base}/sha256sums.asc", timeout=PROBE_SECONDS) as reply:  # noqa: S310
            sums = dict(
                reversed(line.split())
                for line in reply.read().decode().splitlines()
                if line.endswith(".tar.xz")
            )
        versions = newest([name for name in sums if name.startswith("linux-")], series)
        if not versions:
            say(f"kernel.org has no {series}")
            return None
        name = f"linux-{versions[0]}.tar.xz"
        say(f"downloading {name} from kernel.org")
        _download(f"{base}/{name}", directory / name)
    except (urllib.error.URLError, OSError) as error:
        say(f"kernel.org cannot be reached ({error})")
        return None
    if _sha256(directory / name) != sums[name]:
        (directory / name).unlink()
        raise KernelError(
            f"{name} from kernel.org does not have the checksum that kernel.org states"
        )
    return directory / name


def debian_archive(texts: list[str]) -> str | None:
    """The address of the machine's own Debian archive, out of its sources files."""
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


def _private_apt(archive: str, directory: Path) -> list[str]:
    """Options that let apt read sid's sources without a change to this machine's setup."""
    for name in ("sources", "lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "sources/linux.sources").write_text(
        f"Types: deb-src\nURIs: {archive}\nSuites: {DEBIAN_SUITES}\n"
        f"Components: main\nSigned-By: {DEBIAN_KEYRING}\n"
    )
    options = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": f"{directory}/sources",
        "Dir::State::Lists": f"{directory}/lists",
        "Dir::Cache": f"{directory}/cache",
        # apt's own user cannot read a cache in somebody's home directory.
        "APT::Sandbox::User": "root",
    }
    return [f"-o{name}={value}" for name, value in options.items()]


def _from_debian(series: str, directory: Path) -> Path | None:
    archive = debian_archive(list(_apt_sources()))
    if not archive or not shutil.which("apt-get"):
        say("this machine has no Debian archive to take the source package from")
        return None
    apt = _private_apt(archive, directory / "apt")
    say(f"asking the Debian archive ({DEBIAN_SUITES}) for linux {series}")
    output(["apt-get", *apt, "update"])
    shown = output(["apt-cache", *apt, "showsrc", "--only-source", "linux"])
    packages = re.findall(r"^Version: (\S+)$", shown, re.MULTILINE)
    for version in newest(packages, series):
        package = next(name for name in packages if name.startswith(f"{version}-"))
        try:
            source = [
                "source",
                "--download-only",
                "--tar-only",
                "--only-source",
                f"linux={package}",
            ]
            output(["apt-get", *apt, *source], cwd=directory)
        except KernelError as error:
            # The index lists more than the pool keeps.
            say(f"linux {package} cannot be had: {str(error).splitlines()[-1]}")
            continue
        return directory / f"linux_{version}.orig.tar.xz"
    return None


def _cached(series: str, directory: Path) -> Path | None:
    archives = {
        version: path
        for path in sorted(directory.glob("linux[-_]*.tar.xz"))
        for version in newest(
            [path.name.removesuffix(".orig.tar.xz").removesuffix(".tar.xz")], series
        )
    }
    return archives[max(archives, key=version_key)] if archives else None


def get_source(series: str, directory: Path, given: Path | None) -> Source:
    """The newest pristine source of `series` (7.2); `given` overrides every search."""
    if given:
        return _describe(given.resolve())
    directory.mkdir(parents=True, exist_ok=True)
    archive = (
        _cached(series, directory)
        or _from_kernel_org(series, directory)
        or _from_debian(series, directory)
    )
    if not archive:
        raise KernelError(
            f"no source of Linux {series} was found",
            "give a tarball of it with --source, or in TINYKDUMP_KERNEL_SOURCE",
        )
    return _describe(archive)
