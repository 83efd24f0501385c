"""Dumps as the crash side writes them, restored with the real gpg and makedumpfile."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.keyring import Keyring
from tinykdump.errors import TinykdumpError
from tinykdump.restore import restore

LOG = b"[    1.0] panic\n" * 20000


def flat(records: list[tuple[int, bytes]]) -> bytes:
    """makedumpfile's flattened format: a header, then offset, size and bytes of each piece
    (makedumpfile_header and makedumpfile_data_header in its sources)."""
    header = b"makedumpfile\0\0\0\0" + (1).to_bytes(8, "big") + (1).to_bytes(8, "big")
    body = b"".join(
        offset.to_bytes(8, "big") + len(data).to_bytes(8, "big") + data for offset, data in records
    )
    return header.ljust(4096, b"\0") + body + b"\xff" * 16


class Dump:
    """A directory of the stick."""

    def __init__(self, path: Path, keys: Keyring) -> None:
        self.path = path
        self.keys = keys
        path.mkdir()
        self.sums: list[str] = []

    def add(self, name: str, content: bytes, *, part: int = 1 << 20, key: str = "good") -> None:
        """A stream in parts; encrypted when its name says so."""
        if name.endswith(".gpg"):
            to = ("--trust-model", "always", "-r", f"{key}@example.org")
            content = self.keys.gpg(*to, "--encrypt", "--compress-algo", "none", stdin=content)
        for number, start in enumerate(range(0, len(content), part)):
            piece = content[start : start + part]
            (self.path / f"{name}.{number:03d}").write_bytes(piece)
            self.sums.append(f"{hashlib.sha256(piece).hexdigest()}  {name}.{number:03d}")
        (self.path / "SHA256SUMS").write_text("".join(f"{line}\n" for line in self.sums))


@pytest.fixture
def dump(tmp_path: Path, keys: Keyring) -> Dump:
    return Dump(tmp_path / "dump", keys)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir()) if path.exists() else []


@pytest.mark.parametrize("suffix", [".gpg", ""])
def test_a_dump_in_parts(dump: Dump, keys: Keyring, tmp_path: Path, suffix: str) -> None:
    core = [(0, b"KDUMP" * 1000), (70000, b"\1" * 3000), (8, b"late")]
    dump.add(f"dmesg.txt{suffix}", LOG, part=100_000)
    dump.add(f"vmcore.flat{suffix}", flat(core), part=3000)
    output = tmp_path / "new/out"
    assert restore(dump.path, output, keys.home) == (output / "dmesg.txt", output / "vmcore")
    assert names(output) == ["dmesg.txt", "vmcore"]
    assert (output / "dmesg.txt").read_bytes() == LOG
    # makedumpfile -R itself says what is right
    (tmp_path / "flat").write_bytes(flat(core))
    with (tmp_path / "flat").open("rb") as source:
        subprocess.run(["makedumpfile", "-R", tmp_path / "vmcore"], stdin=source, check=True,
                       capture_output=True)  # fmt: skip
    assert (output / "vmcore").read_bytes() == (tmp_path / "vmcore").read_bytes()
    assert {path.stat().st_mode & 0o777 for path in output.iterdir()} == {0o600}


def test_the_log_of_a_failed_dump(dump: Dump, keys: Keyring, tmp_path: Path) -> None:
    dump.add("crash-kernel.txt.gpg", LOG)
    restore(dump.path, tmp_path / "out", keys.home)
    assert names(tmp_path / "out") == ["crash-kernel.txt"]


def test_a_damaged_part(dump: Dump, keys: Keyring, tmp_path: Path) -> None:
    dump.add("dmesg.txt.gpg", LOG, part=100_000)
    part = dump.path / "dmesg.txt.gpg.001"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(TinykdumpError, match=r"^\S+/dmesg.txt.gpg.001 is damaged: its SHA-256"):
        restore(dump.path, tmp_path / "out", keys.home)
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize("suffix", [".gpg", ""])
def test_a_part_that_is_not_there(dump: Dump, keys: Keyring, tmp_path: Path, suffix: str) -> None:
    dump.add(f"dmesg.txt{suffix}", LOG, part=100_000)
    (dump.path / f"dmesg.txt{suffix}.001").unlink()
    with pytest.raises(TinykdumpError, match=r"001: No such file or directory \(check the stick"):
        restore(dump.path, tmp_path / "out", keys.home)
    assert names(tmp_path / "out") == []


def test_another_key(dump: Dump, tmp_path: Path) -> None:
    dump.add("dmesg.txt.gpg", LOG)
    (tmp_path / "empty").mkdir(mode=0o700)
    with pytest.raises(TinykdumpError, match=r"dmesg.txt was not decrypted: .*--keys \(now: "):
        restore(dump.path, tmp_path / "out", tmp_path / "empty")
    assert names(tmp_path / "out") == []


def test_a_damaged_stream_with_right_sums(dump: Dump, keys: Keyring, tmp_path: Path) -> None:
    """Somebody who can write the stick can write its sums: gpg finds it out."""
    dump.add("dmesg.txt.gpg", LOG)
    whole = bytearray((dump.path / "dmesg.txt.gpg.000").read_bytes())
    whole[len(whole) // 2] ^= 1
    dump.sums.clear()
    dump.add("dmesg.txt", bytes(whole))
    (dump.path / "dmesg.txt.000").rename(dump.path / "dmesg.txt.gpg.000")
    sums = dump.path / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("dmesg.txt", "dmesg.txt.gpg"))
    with pytest.raises(TinykdumpError, match=r"dmesg\.txt was not decrypted"):
        restore(dump.path, tmp_path / "out", keys.home)
    assert names(tmp_path / "out") == []


HASH = "0" * 64


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (f"{HASH}  ../../etc/passwd.000", "SHA256SUMS is damaged"),
        (f"{HASH}  /etc/shadow.000", "SHA256SUMS is damaged"),
        (f"{HASH}  dmesg.txt.gpg.000/x", "SHA256SUMS is damaged"),
        (f"{HASH}  other.txt.000", "SHA256SUMS is damaged"),
        (f"{HASH[1:]}  dmesg.txt.000", "SHA256SUMS is damaged"),
        (f"{HASH} *dmesg.txt.000", "SHA256SUMS is damaged"),
        (f"{HASH}  dmesg.txt.\u0660\u0660\u0660", "SHA256SUMS is damaged"),
        (f"{HASH}  dmesg.txt.001", "a part before dmesg.txt.001 is missing"),
        (f"{HASH}  dmesg.txt.000\n{HASH}  dmesg.txt.002", "a part before dmesg.txt.002 is missi"),
        (f"{HASH}  dmesg.txt.000\n{HASH}  dmesg.txt.000", "a part before dmesg.txt.000 is missi"),
        (f"{HASH}  dmesg.txt.000\n{HASH}  dmesg.txt.gpg.000", "dmesg.txt.000: No such file"),
        ("", "holds nothing"),
        (None, "is not a dump: it has no SHA256SUMS"),
    ],
)
def test_sums_that_lie(
    dump: Dump, keys: Keyring, tmp_path: Path, lines: str | None, says: str
) -> None:
    if lines is not None:
        (dump.path / "SHA256SUMS").write_text(lines)
    with pytest.raises(TinykdumpError, match=says):
        restore(dump.path, tmp_path / "out", keys.home)
    assert names(tmp_path / "out") == []


def test_a_link_on_the_stick_is_not_followed(dump: Dump, keys: Keyring, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    dump.add("dmesg.txt", b"x")
    (dump.path / "dmesg.txt.000").unlink()
    (dump.path / "dmesg.txt.000").symlink_to(secret)
    with pytest.raises(TinykdumpError, match=r"dmesg\.txt\.000: Too many levels of symbolic"):
        restore(dump.path, tmp_path / "out", keys.home)
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_sums_that_are_no_file(dump: Dump, keys: Keyring, tmp_path: Path, kind: str) -> None:
    """Nobody writes to that pipe, and the link's target has no end."""
    sums = dump.path / "SHA256SUMS"
    match kind:
        case "link":
            sums.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(sums)
        case _:
            sums.mkdir()
    with pytest.raises(TinykdumpError, match="is not a dump: it has no SHA256SUMS"):
        restore(dump.path, tmp_path / "out", keys.home)


def test_nothing_is_overwritten(dump: Dump, keys: Keyring, tmp_path: Path) -> None:
    dump.add("dmesg.txt", LOG)
    (tmp_path / "dmesg.txt").write_bytes(b"mine")
    with pytest.raises(TinykdumpError, match=r"dmesg\.txt exists"):
        restore(dump.path, tmp_path, keys.home)
    assert (tmp_path / "dmesg.txt").read_bytes() == b"mine"


def test_what_is_no_flattened_core(dump: Dump, keys: Keyring, tmp_path: Path) -> None:
    dump.add("vmcore.flat.gpg", b"not a core" * 1000)
    with pytest.raises(TinykdumpError, match="makedumpfile failed: "):
        restore(dump.path, tmp_path / "out", keys.home)
    assert names(tmp_path / "out") == []
