# SPDX-License-Identifier: GPL-2.0-or-later
"""Decrypts a stream with gpg, which finds secret keys in a home directory and on smart cards."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tinykdump import openpgp
from tinykdump.errors import TinykdumpError
from tinykdump.keyring import gpg, secret_key_ids
from tinykdump.parts import CHUNK, Source, Stream

if TYPE_CHECKING:
    import gnupg

# python-gnupg's statuses for a message that is damaged or cut off.
_DAMAGED = ("", "no data was provided", "decryption failed", "decryption incomplete")


class SecretKeyError(TinykdumpError):
    """A secret key that is missing or cannot be used; the dump itself may be intact."""


class Sink(Protocol):
    """The destination of the restored bytes."""

    def write(self, data: bytes, /) -> int:
        """Take some bytes. Raises OSError if writing fails, TinykdumpError for bad data."""


def decrypt(stream: Stream, source: Source, keyring: "gnupg.GPG | None", sink: Sink) -> None:
    """Write the contents of a stream to ``sink``. Raises TinykdumpError or OSError.

    Only an encrypted stream needs a ``keyring``. What gpg decrypts before an error is written, too.
    """
    if keyring is None or not stream.encrypted:
        while chunk := source.read(CHUNK):
            sink.write(chunk)
        return
    # python-gnupg calls read and take on its own threads, where an exception would be lost.
    failures: list[TinykdumpError | OSError] = []
    taken = 0

    class Input:
        def read(self, size: int) -> bytes:
            return b"" if failures else source.read(size)

    def take(chunk: bytes) -> bool:
        nonlocal taken
        taken += len(chunk)
        try:
            if taken > stream.size:  # impossible: gpg does not compress on the crash side
                raise TinykdumpError("it contains more than its size", "copy the dump again")
            if chunk and not failures:
                sink.write(chunk)
        except (TinykdumpError, OSError) as error:
            failures.append(error)
        return False  # python-gnupg must not keep the chunk in memory

    keyring.buffer_size = CHUNK
    keyring.on_data = take
    result = keyring.decrypt_file(Input(), always_trust=True)
    if failures:
        raise failures[0]
    if not result.ok:
        message = f"gpg cannot decrypt it: {result.status or 'unknown error'}"
        if result.status in _DAMAGED:
            raise TinykdumpError(message, "copy the dump from the stick again")
        raise SecretKeyError(message, "import the secret key, or name its directory with --keys "
                             f"(now: {keyring.gnupghome})")  # fmt: skip


def keyring_for(stream: Stream, homes: Sequence[Path]) -> "gnupg.GPG | None":
    """The keyring in the first directory that has the secret key for a stream, else in the last.

    A stream that is not encrypted needs none. Raises TinykdumpError.
    """
    if not stream.encrypted:
        return None
    *others, last = homes
    try:
        recipient = openpgp.recipient(stream.head(openpgp.HEAD)) if others else ""
    except OSError:  # whoever reads all of it reports this
        return gpg(last)
    there = (home for home in others if recipient in secret_key_ids(home))
    return gpg(next(there, last))
