# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps as src/crash writes them, for the tests of all that reads them."""

import hashlib
import os
from pathlib import Path

from tests.keyring import Keyring
from tinykdump.dump import SUMS, part_name

LOG = b"[    1.0] panic\n" * 20000


END = 16  # bytes of the mark at the end
CORE = [(0, b"KDUMP" * 1000), (70000, os.urandom(300_000)), (8, b"late")]


def flat(records: list[tuple[int, bytes]]) -> bytes:
    """makedumpfile's flattened format: a header, then offset, size and bytes of each piece
    (makedumpfile_header and makedumpfile_data_header in its sources)."""
    header = b"makedumpfile\0\0\0\0" + (1).to_bytes(8, "big") + (1).to_bytes(8, "big")
    body = b"".join(
        offset.to_bytes(8, "big") + len(data).to_bytes(8, "big") + data for offset, data in records
    )
    return header.ljust(4096, b"\0") + body + b"\xff" * 16


class Dump:
    """A dump's directory."""

    def __init__(self, path: Path, keys: Keyring) -> None:
        self.path = path
        self.keys = keys
        path.mkdir()
        self.sums: list[str] = []

    def add(self, name: str, content: bytes, *, part: int = 1 << 20, key: str = "good") -> None:
        """Add a stream in parts; encrypted if its name ends in .gpg."""
        if name.endswith(".gpg"):
            to = ("--trust-model", "always", "-r", f"{key}@example.org")
            content = self.keys.gpg(*to, "--encrypt", "--compress-algo", "none", stdin=content)
        self.put(name, content, part=part)

    def put(self, name: str, content: bytes, *, part: int = 1 << 20) -> None:
        """Add a stream as it is, in parts, with their checksums."""
        for number, start in enumerate(range(0, len(content), part)):
            piece = content[start : start + part]
            file = part_name(name.removesuffix(".gpg"), name.endswith(".gpg"), number)
            (self.path / file).write_bytes(piece)
            self.sums.append(f"{hashlib.sha256(piece).hexdigest()}  {file}")
        (self.path / SUMS).write_text("".join(f"{line}\n" for line in self.sums))


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else []
