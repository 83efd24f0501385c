# SPDX-License-Identifier: GPL-2.0-or-later
"""Our packages as tools/rpm builds them, and stand-ins for what Debian has under other names."""

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vmtest import rootfs

REPOSITORY = Path(__file__).parents[2]
# Where a guest finds the packages.
PLACE = "/srv/packages"

# Guests with rpm and dnf: those of Debian 13, and those that came after them.
RPM4 = rootfs.Recipe(packages=(*rootfs.PACKAGES, "dnf", "rpm"))
RPM6 = rootfs.Recipe(suite="forky", packages=(*rootfs.PACKAGES, "dnf5", "mount", "rpm"))


# What transactions took, for the end of pytest's output; a fixture makes it the test's own.
times: list[tuple[str, object]] = []


@dataclass(frozen=True)
class StandIn:
    """A package that says that something is there, or brings one file."""

    name: str
    version: str = "1"
    provides: tuple[str, ...] = ()
    file: str = ""
    content: bytes = b""


# Fedora's names of what the guest's root has.
BASE = StandIn("debian-root", provides=(
    "/bin/sh", "/usr/bin/kernel-install", "/usr/bin/sh", "cpio", "gnupg2", "gzip", "kexec-tools",
    "kmod", "makedumpfile", "python3 = 3.13", "python3-gnupg", "python3-pyelftools",
    "python3-rpm", "systemd", "systemd-udev", "util-linux", "xz", "zstd",
))  # fmt: skip


def busybox(program: Path, version: str) -> StandIn:
    """Debian's busybox as a package; another version has other bytes and works the same."""
    content = program.read_bytes() + version.encode()
    return StandIn("busybox", version, file="/usr/bin/busybox", content=content)


def work_tree() -> str:
    """A commit of what is in the work tree now, or HEAD."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    made = git(REPOSITORY, *identity, "stash", "create")
    return made or "HEAD"


def git(directory: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=directory, check=True, capture_output=True,
                          text=True).stdout.strip()  # fmt: skip


def build(checkout: Path, commit: str, output: Path, *options: str) -> tuple[Path, ...]:
    """Run a checkout's tools/rpm; the packages."""
    command = ["tools/rpm", commit, f"--output={output}", *options]
    done = subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True)
    return tuple(Path(line) for line in done.stdout.splitlines())


def binary(built: Iterable[Path]) -> Path:
    """The package tinykdump among them."""
    return next(path for path in built if path.name.endswith(".noarch.rpm"))


def clone(directory: Path) -> Path:
    """A clean checkout of what is in the work tree now."""
    git(REPOSITORY, "clone", "--quiet", "--no-checkout", ".", str(directory))
    git(REPOSITORY, "push", "--quiet", str(directory), f"{work_tree()}:refs/heads/tested")
    git(directory, "checkout", "--quiet", "tested")
    return directory


def changed(directory: Path, output: Path) -> Path:
    """Release 2, with another default configuration and other code for the crash kernel."""
    clone(directory)
    for name in ("src/default/tinykdump", "src/crash/lib.sh"):
        with (directory / name).open("a") as file:
            file.write("# release 2\n")
    git(directory, "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet",
        "--all", "--message=release 2")  # fmt: skip
    return binary(build(directory, "HEAD", output, "--define=baserelease 2"))


def stand_in(made: StandIn, output: Path) -> Path:
    """The package of a stand-in."""
    lines = [
        "%global __os_install_post %{nil}",
        f"Name: {made.name}", f"Version: {made.version}", "Release: 1",
        "Summary: Stand-in for what Debian's root has", "License: GPL-2.0-or-later",
        *(f"Provides: {what}" for what in made.provides),
        "%description", "%{summary}.", "%install", "%files",
    ]  # fmt: skip
    if made.file:
        lines[-1:] = ["install -D -m 755 content %{buildroot}" + made.file, "%files", made.file]
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "BUILD").mkdir()
        (Path(name) / "BUILD/content").write_bytes(made.content)
        (Path(name) / "stand-in.spec").write_text("\n".join(lines) + "\n")
        command = ["rpmbuild", "-bb", "--quiet", f"--define=_topdir {name}",
                   f"--define=_builddir {name}/BUILD", f"--define=_rpmdir {output}",
                   "--define=_buildhost localhost", f"{name}/stand-in.spec"]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    (built,) = output.glob(f"**/{made.name}-{made.version}-1.*.rpm")
    return built


def archive(packages: Sequence[Path]) -> bytes:
    """The packages and their repository's metadata, as a tar archive to unpack in a guest."""
    with tempfile.TemporaryDirectory() as name:
        for package in packages:
            shutil.copy(package, name)
        subprocess.run(["createrepo_c", "--quiet", name], check=True)
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            tar.add(name, PLACE.lstrip("/"))
        return content.getvalue()
