# SPDX-License-Identifier: GPL-2.0-or-later
"""GnuPG home directories: python-gnupg on them, and the daemons that gpg would leave running."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tinykdump import distribution
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.run import ENVIRONMENT, run

try:
    import gnupg
except ImportError:  # no repository of RHEL has it
    gnupg = None

# Bytes that a pipe to or from gpg takes: as many as Linux gives to every user.
PIPE = 1 << 20

# Only making a key needs an agent, and an agent would keep running. Keys that are newer than the
# clock are valid: after a boot with an empty battery and no network, the clock is wrong. The crash
# side ignores the clock, too.
_QUIET = [
    "--no-autostart", "--no-auto-check-trustdb", "--ignore-time-conflict", "--ignore-valid-from",
]  # fmt: skip

# gpg-agent(1) passes these to pinentry, which asks for a passphrase; GPG_TTY is the user's
# terminal.
_ASKING = (
    "GPG_TTY", "TERM", "DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR",
    "XDG_SESSION_TYPE", "DBUS_SESSION_BUS_ADDRESS", "PINENTRY_USER_DATA",
)  # fmt: skip


def gpg(home: Path) -> "gnupg.GPG":
    """python-gnupg on a home directory whose secret keys may have a passphrase.

    gpg asks for it at the user's terminal or desktop. Raises TinykdumpError if the directory or
    gpg is missing.
    """
    asking = {name: os.environ[name] for name in _ASKING if name in os.environ}
    if terminal := _terminal():
        asking.setdefault("GPG_TTY", terminal)
    return open_home(home, asking=asking)


def _terminal() -> str:
    """The name of the user's terminal; empty: there is none, or it is outside of this container."""
    for stream in (0, 1, 2):
        with suppress(OSError):
            return os.ttyname(stream)
    return ""


def open_home(
    home: Path, options: Sequence[str] = (), *, asking: Mapping[str, str] | None = None
) -> "gnupg.GPG":
    """python-gnupg on a home directory. Raises TinykdumpError.

    ``options`` are those of gpg, ``asking`` environment variables for pinentry.
    """
    if not home.is_dir():
        raise TinykdumpError(f"{home} is not a directory", "name a GnuPG home directory")
    if gnupg is None:
        hint = distribution.install(Host(), "python3-gnupg")
        raise TinykdumpError("python3-gnupg is not installed", hint)
    try:
        environment = {**ENVIRONMENT, **(asking or {})}
        return _with_wide_pipes()(gnupghome=str(home), options=list(options), env=environment)
    except OSError:
        raise TinykdumpError("gpg is not installed", "install gnupg2") from None


def _with_wide_pipes() -> "type[gnupg.GPG]":
    """python-gnupg whose pipes take more than the 64 KiB that is usual.

    With those, gpg and tinykdump wait for each other all the time, which takes longer than to
    decrypt a dump. Should python-gnupg rename its method, only the speed is lost.
    """

    class Wide(gnupg.GPG):  # type: ignore[misc] # python-gnupg has no types
        def _open_subprocess(self, *words: object, **named: object) -> object:
            process = super()._open_subprocess(*words, **named)
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # the user has too many already (pipe(7))
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
            return process

    return Wide


@contextmanager
def silent(home: Path) -> "Iterator[gnupg.GPG]":
    """python-gnupg on a home directory, to decrypt without asking anybody for a passphrase.

    An agent that was started for it ends with the block. Raises TinykdumpError.
    """
    with ending(home):
        yield open_home(home, ["--pinentry-mode=cancel"])


@contextmanager
def ending(home: Path) -> Iterator[None]:
    """End the agent of that home with the block, unless it was running before."""
    running = _is_running(home, "agent-socket")
    try:
        yield
    finally:
        if not running:
            run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=False)


def _is_running(home: Path, socket_name: str) -> bool:
    """Whether a daemon of GnuPG answers at its socket for that home. Raises TinykdumpError."""
    place = run(["gpgconf", "--homedir", home, "--list-dirs", socket_name]).stdout
    with socket.socket(socket.AF_UNIX) as running:
        try:
            return running.connect_ex(place.rstrip(b"\n")) == 0
        except OSError:  # the path is longer than a socket's can be
            return False


def secret_key_ids(home: Path) -> frozenset[str]:
    """The IDs, 16 hexadecimal digits, of the keys in a home directory that have their secret part.

    A key on a smart card counts: gpg keeps a note of it in the same place. No agent is started.
    Raises TinykdumpError if gpg fails.
    """
    grips = {each.stem for each in home.glob("private-keys-v1.d/*.key")}
    if not grips:
        return frozenset()
    words = ["--batch", "--no-autostart", "--with-colons", "--with-keygrip", "--list-keys"]
    with looking(home):
        listed = run(["gpg", "--homedir", home, *words]).stdout.decode(errors="replace")
    found, last = set(), ""
    for line in listed.splitlines():  # doc/DETAILS in GnuPG
        fields = line.split(":")
        if fields[0] in ("pub", "sub"):
            last = fields[4]
        elif fields[0] == "grp" and fields[9] in grips:
            found.add(last)
    return frozenset(found)


@contextmanager
def looking(home: Path) -> "Iterator[gnupg.GPG]":
    """A keyring to read; daemons started for it end with the block. Raises TinykdumpError."""
    keyring = open_home(home, _QUIET)
    started = _start_keyboxd(home)
    try:
        yield keyring
    finally:
        if started:
            run(["gpgconf", "--homedir", home, "--kill", "keyboxd"], check=False)


@contextmanager
def imported(content: bytes) -> "Iterator[gnupg.GPG]":
    """A temporary keyring with only these exported keys, to read. Raises TinykdumpError."""
    with (
        tempfile.TemporaryDirectory(prefix="tinykdump-") as home,
        looking(Path(home)) as found,
    ):
        found.import_keys(content)
        yield found


def _start_keyboxd(home: Path) -> bool:
    """Start keyboxd if this home needs it and it is not running; return whether it was started.

    No option overrides use-keyboxd in /etc/gnupg/common.conf or the home's own (GnuPG 2.4).
    Raises TinykdumpError.
    """
    said = run(["gpg", "--homedir", home, "--batch", "--gpgconf-list"], check=False).stdout
    if b"use_keyboxd:16:1:" not in said.splitlines():
        return False
    if _is_running(home, "keyboxd-socket"):
        return False
    run(
        ["gpgconf", "--homedir", home, "--launch", "keyboxd"],
        hint="install keyboxd, which use-keyboxd in common.conf asks for",
    )
    return True
