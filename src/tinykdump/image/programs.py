# SPDX-License-Identifier: GPL-2.0-or-later
"""Collects the programs of the image: the tools for a dump and the user's script."""

import stat
from collections.abc import Iterable
from pathlib import Path

from tinykdump import distribution
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import elf, entries, handover, makedumpfile
from tinykdump.image.entries import Entry
from tinykdump.image.libraries import Program, libraries
from tinykdump.image.makedumpfile import Shortcoming
from tinykdump.run import run

# src/crash: as installed, or beside this package in a checkout.
CRASH_SIDE = (Path("/usr/share/tinykdump/crash"), Path(__file__).parents[2] / "crash")

# The parts of /lib/tinykdump.sh, of which /init runs the functions.
LIBRARY = ("lib.sh", "supervisor.sh", "stick.sh", "dump.sh")

PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

# In the image these are links to /bin, because a script may name any of them.
_MERGED = PATH[:-1]

# SUSE has the static busybox under the first name, and a dynamic one under the second.
_BUSYBOX = ("busybox-static", "busybox")

# The busybox applets that src/crash uses.
APPLETS = (
    "cat", "cut", "date", "dd", "df", "dmesg", "du", "env", "findfs", "grep", "insmod",
    "mkdir", "mount", "mv", "od", "pidof", "printf", "readlink", "rm", "sed",
    "setsid", "sh", "sha256sum", "sleep", "sort", "sync", "tail", "timeout", "touch", "tr",
    "umount", "uname", "usleep", "wc",
)  # fmt: skip
# It can do without these.
_FINAL_APPLETS = ("halt", "poweroff", "reboot")

# gpg has the first since 2.4.0 and 2.2.42, and the second since 2.3.0.
_OCB = ("--force-ocb", "--force-aead")


def find(host: Host, name: str, package: str) -> Path:
    """The path of a program. Raises TinykdumpError when it is not installed."""
    for directory in PATH:
        if host.exists(f"{directory}/{name}"):
            return Path(directory) / name
    raise TinykdumpError(f"{name} is not installed", distribution.install(host, package))


def program(host: Host, name: str, package: str) -> Program:
    """Read a program. Raises TinykdumpError when it is not installed or not ELF."""
    path = find(host, name, package)
    data = host.read(path)
    return Program(path, data, elf.parse(data, str(path)))


def busybox(host: Host) -> Program:
    """The busybox of the host. Raises TinykdumpError when it is not statically linked."""
    names = [name for name in _BUSYBOX if any(host.exists(f"{place}/{name}") for place in PATH)]
    package = "busybox (on Debian and SUSE: busybox-static)"
    found = program(host, next(iter(names), _BUSYBOX[-1]), package)
    if found.facts.is_dynamic:
        hint = distribution.install(host, package)
        raise TinykdumpError(f"{found.path} is dynamically linked", hint)
    return found


def shortcoming(host: Host, kernel_config: str) -> Shortcoming | None:
    """What the installed makedumpfile cannot leave out of a dump; see makedumpfile.py."""
    try:
        data = host.read(find(host, "makedumpfile", "makedumpfile"))
    except TinykdumpError:  # not installed: others report that
        return None
    return makedumpfile.shortcoming(data, kernel_config)


def script(host: Host, path: str) -> tuple[Entry, tuple[Program, ...]]:
    """The user's script as an entry, and the programs that it needs to start.

    busybox runs a script for /bin/sh. Raises TinykdumpError when the script is not executable
    or its interpreter is not installed.
    """
    content = host.read(path)
    host.vouch(path)
    if not host.path(host.resolve(path) or path).stat().st_mode & stat.S_IXUSR:
        raise TinykdumpError(f"script {path} is not executable", f"chmod +x {path}")
    entry = entries.file(handover.SCRIPT, content, source=path, mode=0o755)
    if not content.startswith((b"#!", b"\x7fELF")):
        raise TinykdumpError(f"script {path} has no #! line", "start it with #!/bin/sh")
    if not content.startswith(b"#!"):
        return entry, (Program(Path(path), content, elf.parse(content, f"script {path}")),)
    words = content.split(b"\n", 1)[0][2:].decode(errors="replace").split()
    if words and Path(words[0]).name == "env":
        words = [str(find(host, word, f"the interpreter of script {path}")) for word in words[1:2]]
    if not words or not host.exists(words[0]):
        raise TinykdumpError(
            f"interpreter {words[0] if words else ''} of script {path} is not installed",
            "install it, or write the script for /bin/sh, which is busybox in the crash kernel",
        )
    if Path(words[0]).name in ("sh", "ash", "busybox"):
        return entry, ()
    data = host.read(words[0])
    return entry, (Program(Path(words[0]), data, elf.parse(data, words[0])),)


def userland(host: Host, config: Config, *, encrypt: bool) -> tuple[Entry, ...]:
    """All programs of an image with their libraries, and the scripts of src/crash.

    Raises TinykdumpError when one is missing or cannot run in the image.
    """
    shell = busybox(host)
    filtering = program(host, "makedumpfile", "makedumpfile")
    renamed = "".join(f"{offset}\n" for offset in makedumpfile.renamed(filtering.data))
    tools = [filtering]
    if encrypt:
        tools.append(program(host, "gpg", "gnupg2 (on Debian: gpg)"))
    own, interpreters = script(host, config.script) if config.script else (None, ())
    placed = [*tools, *(user for user in interpreters if own and user.data != own.content)]
    return (
        entries.file("/bin/busybox", shell.data, source=str(shell.path), mode=0o755),
        *(entries.link(f"/bin/{name}", "busybox") for name in _applets(host, shell)),
        *(
            entries.file(_destination(user), user.data, source=str(user.path), mode=0o755)
            for user in placed
        ),
        *libraries(host, [*tools, *interpreters]),
        *([own, *(entries.link(place, "/bin") for place in _MERGED)] if own else []),
        entries.file("/init", crash_side("init"), mode=0o755),
        entries.file("/lib/tinykdump.sh", b"".join(map(crash_side, LIBRARY))),
        entries.file(handover.RENAMED, renamed.encode()),
    )


def ocb(planned: Iterable[Entry]) -> str:
    """The option with which the gpg of an image encrypts with OCB; empty: it has none.

    OCB takes a fraction of the CPU time of CFB with its SHA-1 (`python -m tests.bench writing`).
    gpg decrypts it since 2.2.21.
    """
    gpg = next((entry.content for entry in planned if entry.path == "/bin/gpg"), b"")
    return next((option for option in _OCB if b"\0%b\0" % option[2:].encode() in gpg), "")


def _destination(user: Program) -> str:
    """Programs from PATH go to /bin; interpreters elsewhere keep the path that scripts name."""
    return f"/bin/{user.path.name}" if str(user.path.parent) in PATH else str(user.path)


def _applets(host: Host, shell: Program) -> tuple[str, ...]:
    """The applets for the image. Raises TinykdumpError when this busybox lacks one."""
    have = set(run([host.path(shell.path), "--list"]).stdout.decode().split())
    lacking = sorted(set(APPLETS) - have)
    if lacking:
        raise TinykdumpError(
            f"{shell.path} has no {', '.join(lacking)}", "install the distribution's own busybox"
        )
    return (*APPLETS, *(name for name in _FINAL_APPLETS if name in have))


def crash_side(name: str) -> bytes:
    """A file of src/crash. Raises TinykdumpError when it is not installed."""
    for directory in CRASH_SIDE:
        if (directory / name).is_file():
            return (directory / name).read_bytes()
    raise TinykdumpError(f"{CRASH_SIDE[0]}/{name} is missing", "reinstall tinykdump")
