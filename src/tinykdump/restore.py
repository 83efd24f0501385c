# SPDX-License-Identifier: GPL-2.0-or-later
"""From a directory on a stick back to a vmcore: check, decrypt, reassemble."""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tinykdump import keys
from tinykdump.errors import TinykdumpError
from tinykdump.run import Filter

_LINE = re.compile(
    r"([0-9a-f]{64})  ((dmesg\.txt|vmcore\.flat|crash-kernel\.txt)(\.gpg)?\.[0-9]{3,})"
)
_CHUNK = 1 << 20  # bytes

# A stick may hold links to files of this machine, or pipes that never end.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True)
class Part:
    """One file of a dump as SHA256SUMS lists it."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Stream:
    """What the crash side saved under one name, in parts."""

    name: str  # dmesg.txt, vmcore.flat, crash-kernel.txt
    encrypted: bool
    parts: tuple[Part, ...]


def streams(directory: Path) -> tuple[Stream, ...]:
    """What is in a dump's directory. Raises TinykdumpError when it is not a dump's.

    SHA256SUMS was written on the crashed machine and travelled on a stick: only the names
    that the crash side writes are taken from it, and never a path.
    """
    try:
        text = _sums(directory / "SHA256SUMS")
    except OSError:
        raise TinykdumpError(
            f"{directory} is not a dump: it has no SHA256SUMS",
            "name a directory tinykdump/MACHINE/TIME of the stick",
        ) from None
    found: dict[tuple[str, bool], list[Part]] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if not match:
            raise TinykdumpError(f"{directory}/SHA256SUMS is damaged", "copy the dump again")
        parts = found.setdefault((match[3], bool(match[4])), [])
        if not match[2].endswith(f".{len(parts):03d}"):
            raise TinykdumpError(f"{directory}: a part before {match[2]} is missing",
                                 "copy the whole directory")  # fmt: skip
        parts.append(Part(directory / match[2], match[1]))
    return tuple(Stream(*key, tuple(parts)) for key, parts in found.items())


def _sums(path: Path) -> str:
    """The text, as far as it can be one: 64 KiB are the sums of two terabytes on FAT."""
    with os.fdopen(os.open(path, _READ), "rb") as handle:
        if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a file")
        return handle.read(1 << 16).decode(errors="replace")


class Parts:
    """The parts of a stream as one file, each compared with its sum once it was read."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._chunks = self._read_all(parts)
        self._rest = b""

    def _read_all(self, parts: Sequence[Part]) -> Iterator[bytes]:
        for part in parts:
            digest = hashlib.sha256()
            try:
                with os.fdopen(os.open(part.path, _READ), "rb") as handle:
                    while chunk := handle.read(_CHUNK):
                        digest.update(chunk)
                        yield chunk
            except OSError as error:
                raise TinykdumpError(f"{part.path}: {error.strerror}", "check the stick") from None
            if digest.hexdigest() != part.sha256:
                raise TinykdumpError(
                    f"{part.path} is damaged: its SHA-256 is not that of SHA256SUMS",
                    "copy it from the stick again",
                )

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes, b"" at the end. Raises TinykdumpError for damage."""
        if not self._rest:
            self._rest = next(self._chunks, b"")
        taken = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(taken) :]
        return taken


class Sink(Protocol):
    """Whatever takes the restored bytes."""

    def write(self, data: bytes, /) -> int:
        """Take some bytes. Raises OSError when it can not."""


def _decrypt(stream: Stream, home: Path, sink: Sink) -> None:
    """Write what is in a stream to ``sink``. Raises TinykdumpError or OSError."""
    source = Parts(stream.parts)
    if not stream.encrypted:
        while chunk := source.read(_CHUNK):
            sink.write(chunk)
        return
    # python-gnupg reads and writes on threads of its own, where an exception would be lost.
    failures: list[TinykdumpError | OSError] = []

    class Source:
        def read(self, size: int) -> bytes:
            try:
                return b"" if failures else source.read(size)
            except TinykdumpError as error:
                failures.append(error)
                return b""

    def take(chunk: bytes) -> bool:
        try:
            if chunk and not failures:
                sink.write(chunk)
        except OSError as error:
            failures.append(error)
        return False  # python-gnupg is not to keep it

    keyring = keys.gpg(home)
    keyring.buffer_size = _CHUNK
    keyring.on_data = take
    result = keyring.decrypt_file(Source(), always_trust=True)
    if failures:
        raise failures[0]
    if not result.ok:
        raise TinykdumpError(
            f"{stream.name} was not decrypted: {result.status or 'gpg failed'}",
            f"import the secret key, or name its folder with --keys (now: {home})",
        )


def restore(directory: Path, output: Path, home: Path) -> tuple[Path, ...]:
    """Write dmesg.txt and vmcore of a dump to ``output``; what was written, readable by us alone.

    ``home`` is the GnuPG folder with the secret key. Raises TinykdumpError; a file that is not
    complete does not stay.
    """
    found = streams(directory)
    if not found:
        raise TinykdumpError(f"{directory} holds nothing", "the stick was lost before the log")
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for stream in found:
        name = output / ("vmcore" if stream.name == "vmcore.flat" else stream.name)
        if name.exists():
            raise TinykdumpError(f"{name} exists", "name another directory with --output")
        partial = name.with_name(f"{name.name}.partial")
        try:
            _write(stream, partial, home)
            partial.rename(name)
        finally:
            partial.unlink(missing_ok=True)
        written.append(name)
    return tuple(written)


def _write(stream: Stream, path: Path, home: Path) -> None:
    """One stream to one file; the flattened format goes through makedumpfile -R."""
    path.unlink(missing_ok=True)
    try:
        # Made here and not by makedumpfile, so that nobody else can read it from the start.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as sink:
            if stream.name != "vmcore.flat":
                _decrypt(stream, home, sink)
                return
        tool = Filter(["makedumpfile", "-R", "-f", path])
        try:
            with suppress(BrokenPipeError):  # its own message is better
                _decrypt(stream, home, tool)
            tool.finish("check that there is room for the dump")
        finally:
            tool.kill()
    except OSError as error:
        raise TinykdumpError(f"{path}: {error.strerror}", "check that there is room") from None
