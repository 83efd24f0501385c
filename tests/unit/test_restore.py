# SPDX-License-Identifier: GPL-2.0-or-later
"""Dumps in the format of src/crash, restored with the real gpg and makedumpfile."""

import errno
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.dumped import CORE, END, LOG, Dump, flat, names
from tests.fakehost import SOURCE
from tests.keyring import Keyring
from tests.unit.test_vmcoreinfo import TEXT, kdump
from tinykdump import cli
from tinykdump.dump import README, STREAMS, SUMS, part_name
from tinykdump.errors import TinykdumpError
from tinykdump.parts import look
from tinykdump.restore import Restored, alone, restore


@dataclass(frozen=True)
class Said:
    """The result of `tinykdump restore`."""

    status: int
    files: list[str]
    errors: list[str]  # lines


@dataclass(frozen=True)
class Restore:
    """Runs `tinykdump restore` on the dump."""

    dump: Dump
    output: Path
    capfd: pytest.CaptureFixture[str]

    def __call__(self, *words: str, home: Path | None = None) -> Said:
        given = ["restore", str(self.dump.path), "-o", str(self.output),
                 "--keys", str(home or self.dump.keys.home), *words]  # fmt: skip
        status = cli.main(given)
        out, err = self.capfd.readouterr()
        assert out.splitlines() == [str(self.output / name) for name in self.order(out)]
        return Said(status, names(self.output), err.splitlines())

    @staticmethod
    def order(out: str) -> list[str]:
        return [Path(line).name for line in out.splitlines()]


@pytest.fixture
def restoring(dump: Dump, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Restore:
    return Restore(dump, tmp_path / "new/out", capfd)


def in_order(core: list[tuple[int, bytes]], path: Path) -> bytes:
    """A flattened stream, restored by makedumpfile."""
    flattened, restored = path / "flat", path / "in-order"
    flattened.write_bytes(flat(core))
    with flattened.open("rb") as source:
        subprocess.run(["makedumpfile", "-R", "-f", restored], stdin=source, check=True,
                       capture_output=True)  # fmt: skip
    return restored.read_bytes()


@pytest.mark.parametrize("suffix", [".gpg", ""])
def test_a_dump_in_parts(restoring: Restore, dump: Dump, tmp_path: Path, suffix: str) -> None:
    dump.add(f"dmesg.txt{suffix}", LOG, part=100_000)
    dump.add(f"vmcore.flat{suffix}", flat(CORE), part=3000)
    (dump.path / "README").write_text("how to read this\n")
    plain = () if suffix else ("--plain",)
    assert restoring(*plain) == Said(0, ["vmcore", "vmcore-dmesg.txt"], [])
    assert (restoring.output / "vmcore-dmesg.txt").read_bytes() == LOG
    assert (restoring.output / "vmcore").read_bytes() == in_order(CORE, tmp_path)
    assert {path.stat().st_mode & 0o777 for path in restoring.output.iterdir()} == {0o600}


@pytest.mark.parametrize("suffix", [".gpg", ""])
def test_a_copy_of_the_memory(restoring: Restore, dump: Dump, suffix: str) -> None:
    """src/crash copies the memory if makedumpfile fails, and removes the earlier parts."""
    copy = os.urandom(250_000)
    dump.add(f"dmesg.txt{suffix}", LOG)
    dump.add(f"vmcore{suffix}", copy, part=100_000)
    assert restoring("--plain") == Said(0, ["vmcore", "vmcore-dmesg.txt"], [])
    assert (restoring.output / "vmcore").read_bytes() == copy


def test_a_copy_that_is_cut_off_is_kept_under_another_name(restoring: Restore, dump: Dump) -> None:
    dump.add("vmcore.gpg", os.urandom(250_000), part=100_000)
    part = dump.path / "vmcore.gpg.002"
    part.write_bytes(part.read_bytes()[:9000])
    incomplete(restoring(), "vmcore.gpg.002 is damaged")


@pytest.mark.parametrize("listed_only", [True, False])
def test_a_dump_with_two_memories(
    restoring: Restore, dump: Dump, tmp_path: Path, listed_only: bool
) -> None:
    """One of them becomes the vmcore; the other is ignored."""
    dump.add("vmcore.gpg", b"a copy" * 1000)
    dump.add("vmcore.flat.gpg", flat(CORE))
    if listed_only:
        (dump.path / "vmcore.flat.gpg.000").unlink()
    said = restoring()
    assert (said.status, said.files) == (0, ["vmcore"])
    expected = b"a copy" * 1000 if listed_only else in_order(CORE, tmp_path)
    assert (restoring.output / "vmcore").read_bytes() == expected
    ignored = [] if listed_only else ["tinykdump: ignored, not part of a dump: 'vmcore.gpg.000'"]
    assert said.errors == ignored


def incomplete(said: Said, reason: str) -> None:
    """Check that the vmcore is kept as vmcore-incomplete and that the last line says why."""
    assert said.status == 1
    assert "vmcore-incomplete" in said.files
    assert "vmcore" not in said.files
    assert said.errors[-1].startswith("tinykdump: vmcore is not complete: ")
    assert reason in said.errors[-1]
    assert said.errors[-1].endswith("/vmcore-incomplete has what could be read)")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("cut", [END, END + 1, 5000, 200_000])
def test_a_stream_that_is_cut_off_is_kept_under_another_name(
    restoring: Restore, dump: Dump, tmp_path: Path, cut: int
) -> None:
    """makedumpfile -R would wait for the rest. gpg reports no error here."""
    dump.add("vmcore.flat.gpg", flat(CORE)[:-cut])
    dump.add("crash-kernel.txt.gpg", LOG)
    said = restoring()
    incomplete(said, "it is cut off")
    assert said.files == ["crash-kernel.txt", "vmcore-incomplete"]
    restored = (restoring.output / "vmcore-incomplete").read_bytes()
    whole, hole = in_order(CORE, tmp_path), bytes(1 << 20)
    assert restored.endswith(hole)
    restored = restored.removesuffix(hole)
    assert len(restored) >= len(whole) - cut
    assert restored[12:] == whole[12 : len(restored)]  # the last piece belongs at offset 8


@pytest.mark.timeout(60)
def test_a_dump_that_ended_with_a_power_loss(restoring: Restore, dump: Dump) -> None:
    """The last part is cut off and not in SHA256SUMS. It is used, and the log is restored."""
    dump.add("dmesg.txt.gpg", LOG)
    dump.add("vmcore.flat.gpg", flat(CORE), part=100_000)
    sums = (dump.path / SUMS).read_text().splitlines(keepends=True)
    (dump.path / SUMS).write_text("".join(sums[:-2]) + sums[-2][:20])
    (dump.path / "vmcore.flat.gpg.003").unlink()
    part = dump.path / "vmcore.flat.gpg.002"
    part.write_bytes(part.read_bytes()[:70_000])
    said = restoring()
    incomplete(said, "vmcore.flat.gpg.002 is not listed in SHA256SUMS")
    assert said.files == ["vmcore-dmesg.txt", "vmcore-incomplete"]
    kept = (restoring.output / "vmcore-incomplete").stat()
    assert 250_000 < kept.st_size - (1 << 20) < 340_000
    assert kept.st_blocks * 512 < 400_000, "the hole takes space"


def test_a_whole_part_without_a_sum_is_not_verified(restoring: Restore, dump: Dump) -> None:
    dump.add("dmesg.txt.gpg", LOG)
    dump.add("vmcore.flat.gpg", flat(CORE))
    sums = (dump.path / SUMS).read_text().splitlines(keepends=True)
    (dump.path / SUMS).write_text(sums[0])
    incomplete(restoring(), "vmcore.flat.gpg.000 is not listed in SHA256SUMS")


@pytest.mark.parametrize("sums", ["lost", "empty", "link", "pipe"])
def test_parts_without_any_sums(restoring: Restore, dump: Dump, tmp_path: Path, sums: str) -> None:
    dump.add("vmcore.flat.gpg", flat(CORE))
    (dump.path / SUMS).unlink()
    match sums:
        case "empty":
            (dump.path / SUMS).touch()
        case "link":
            (dump.path / SUMS).symlink_to(tmp_path / "elsewhere")
        case "pipe":
            os.mkfifo(dump.path / SUMS)
    incomplete(restoring(), "vmcore.flat.gpg.000 is not listed in SHA256SUMS")


@pytest.mark.parametrize("suffix", [".gpg", ""])
def test_a_damaged_part(restoring: Restore, dump: Dump, suffix: str) -> None:
    """The data after the damage is restored; gpg reports the damage at its end."""
    dump.add(f"dmesg.txt{suffix}", LOG, part=100_000)
    dump.add(f"vmcore.flat{suffix}", flat(CORE))
    part = dump.path / f"dmesg.txt{suffix}.001"
    part.write_bytes(part.read_bytes()[:-1] + b"\0")
    said = restoring("--plain")
    assert (said.status, said.files) == (1, ["vmcore", "vmcore-dmesg-incomplete.txt"])
    (error,) = said.errors
    assert f"vmcore-dmesg.txt is not complete: {part} is damaged: its SHA-256 differs from" in error
    assert "(copy it from the stick again; " in error
    assert (restoring.output / "vmcore-dmesg-incomplete.txt").stat().st_size > len(LOG) - 2000


@pytest.mark.parametrize("suffix", [".gpg", ""])
def test_a_missing_part(restoring: Restore, dump: Dump, suffix: str) -> None:
    dump.add(f"dmesg.txt{suffix}", LOG, part=100_000)
    dump.add(f"vmcore.flat{suffix}", flat(CORE), part=100_000)
    (dump.path / f"vmcore.flat{suffix}.001").unlink()
    said = restoring("--plain")
    incomplete(said, f"vmcore.flat{suffix}.001 is missing (copy the whole directory")
    # The parts after the gap are ignored.
    assert "ignored, " in said.errors[0]
    assert (restoring.output / "vmcore-dmesg.txt").read_bytes() == LOG


@pytest.mark.parametrize("lines", ["with", "without"])
def test_a_dump_whose_memory_was_removed_to_make_room(
    restoring: Restore, dump: Dump, lines: str
) -> None:
    """A later crash has removed its memory. The log is there, and perhaps the checksums."""
    dump.add("dmesg.txt.gpg", LOG)
    sums = (dump.path / SUMS).read_text()
    dump.add("vmcore.flat.gpg", flat(CORE), part=100_000)
    for part in dump.path.glob("vmcore*"):
        part.unlink()
    if lines == "without":
        (dump.path / SUMS).write_text(sums)
    said = restoring()
    assert (said.status, said.files) == (1, ["vmcore-dmesg.txt"])
    (error,) = said.errors
    says = {"with": "cannot restore vmcore: vmcore.flat.gpg.000 is missing (copy the whole",
            "without": f"{dump.path} has no vmcore (if crash-kernel.txt "}  # fmt: skip
    assert error.startswith(f"tinykdump: {says[lines]}")


def test_a_second_try_under_the_same_names(restoring: Restore, dump: Dump, tmp_path: Path) -> None:
    """The lines of the first try may still be in SHA256SUMS."""
    dump.add("vmcore.flat.gpg", flat([*CORE, (1 << 20, os.urandom(250_000))]), part=100_000)
    for part in dump.path.glob("vmcore*"):
        part.unlink()
    first = (dump.path / SUMS).read_text()
    dump.sums.clear()
    dump.add("vmcore.flat.gpg", flat(CORE), part=100_000)
    sums = dump.path / SUMS
    sums.write_text(first + sums.read_text())
    assert restoring() == Said(0, ["vmcore"], [])
    assert (restoring.output / "vmcore").read_bytes() == in_order(CORE, tmp_path)


def test_the_log_of_a_failed_dump(restoring: Restore, dump: Dump) -> None:
    dump.add("crash-kernel.txt.gpg", LOG)
    said = restoring()
    assert (said.status, said.files) == (1, ["crash-kernel.txt"])
    assert said.errors == [
        f"tinykdump: {dump.path} has no vmcore (if crash-kernel.txt exists, it says why)"
    ]


def test_a_dump_for_another_key(restoring: Restore, dump: Dump, tmp_path: Path) -> None:
    dump.add("vmcore.flat.gpg", flat(CORE))
    (tmp_path / "empty").mkdir(mode=0o700)
    said = restoring(home=tmp_path / "empty")
    assert (said.status, said.files) == (1, [])
    (error,) = said.errors
    assert "cannot restore vmcore: gpg cannot decrypt it: no secret key (import the" in error
    (error,) = restoring(home=tmp_path / "none").errors
    assert f"cannot restore vmcore: {tmp_path}/none is not a directory (" in error


def test_a_damaged_stream_with_matching_checksums(restoring: Restore, dump: Dump) -> None:
    """Anybody who can write to the stick can change the checksums; gpg detects the damage."""
    dump.add("dmesg.txt.gpg", LOG)
    whole = bytearray((dump.path / "dmesg.txt.gpg.000").read_bytes())
    whole[len(whole) // 2] ^= 1
    dump.sums.clear()
    dump.put("dmesg.txt.gpg", bytes(whole))
    said = restoring()
    assert (said.status, said.files) == (1, ["vmcore-dmesg-incomplete.txt"])
    assert "vmcore-dmesg.txt is not complete: gpg cannot decrypt it: " in said.errors[0]


@pytest.mark.parametrize("suffix", [".gpg", ""])
def test_a_plain_dump_needs_an_option(restoring: Restore, dump: Dump, suffix: str) -> None:
    """Anybody who has the stick can replace the encrypted dump with a forged one."""
    dump.add(f"dmesg.txt{suffix}", LOG)
    dump.add("vmcore.flat", flat(CORE))
    said = restoring()
    assert (said.status, said.files) == (1, ["vmcore-dmesg.txt"] if suffix else [])
    assert said.errors[-1] == (
        "tinykdump: vmcore is not encrypted: anyone who had the stick can have written it (use "
        "--plain if the machine does not encrypt its dumps)"
    )


def test_a_plain_stream_beside_an_encrypted_one_is_ignored(restoring: Restore, dump: Dump) -> None:
    dump.add("dmesg.txt.gpg", LOG)
    dump.add("dmesg.txt", b"forged")
    dump.add("vmcore.flat.gpg", flat(CORE))
    said = restoring("--plain")
    assert said == Said(0, ["vmcore", "vmcore-dmesg.txt"],
                        ["tinykdump: ignored, not part of a dump: 'dmesg.txt.000'"])  # fmt: skip
    assert (restoring.output / "vmcore-dmesg.txt").read_bytes() == LOG


def test_unknown_names_are_ignored(restoring: Restore, dump: Dump) -> None:
    dump.add("vmcore.flat.gpg", flat(CORE))
    for name in ("x\x1b[2J\n", "vmcore.flat.gpg.0", "vmcore.flat.gpg.0001", "dmesg.txt.gpg"):
        (dump.path / name).write_bytes(b"x")
    (dump.path / os.fsdecode(b"\xff")).symlink_to("/dev/zero")
    (dump.path / "sub").mkdir()
    with (dump.path / SUMS).open("ab") as sums:
        sums.write(b"\xff\0\n" + b"0" * 64 + b"  ../../etc/passwd.000\n")
    said = restoring()
    assert (said.status, said.files) == (0, ["vmcore"])
    assert said.errors == ["tinykdump: ignored, not part of a dump: 'dmesg.txt.gpg', 'sub', "
                           r"'vmcore.flat.gpg.0', 'vmcore.flat.gpg.0001', 'x\x1b[2J\n', '\udcff'"
                           ]  # fmt: skip


@pytest.mark.parametrize("name", ["link", "pipe", "directory", "device"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_part_that_is_not_a_regular_file(
    restoring: Restore, dump: Dump, tmp_path: Path, name: str, number: int
) -> None:
    """A stick with ext4 can contain these."""
    dump.add("dmesg.txt.gpg", LOG, part=100_000)
    dump.add("vmcore.flat.gpg", flat(CORE))
    part = dump.path / f"dmesg.txt.gpg.00{number}"
    content = part.read_bytes()
    part.unlink()
    match name:
        case "link":
            (tmp_path / "secret").write_bytes(content)
            part.symlink_to(tmp_path / "secret")
        case "pipe":
            os.mkfifo(part)
        case "directory":
            part.mkdir()
        case "device":
            if os.geteuid() != 0:
                pytest.skip("only root makes device nodes")
            os.mknod(part, 0o20666, os.makedev(1, 5))  # /dev/zero
    said = restoring()
    kept = ["vmcore-dmesg-incomplete.txt"] if number else []
    assert (said.status, said.files) == (1, ["vmcore", *kept])
    assert f"dmesg.txt.gpg.00{number}: not a regular file (check the stick" in said.errors[0]


HASH = "0" * 64


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (f"{HASH}  ../../etc/passwd.000", "contains no saved data"),
        (f"{HASH}  /etc/shadow.000", "contains no saved data"),
        (f"{HASH}  dmesg.txt.gpg.000/x", "contains no saved data"),
        (f"{HASH}  other.txt.000", "contains no saved data"),
        (f"{HASH[1:]}  dmesg.txt.000", "contains no saved data"),
        (f"{HASH} *dmesg.txt.000", "contains no saved data"),
        (f"{HASH}  dmesg.txt.\u0660\u0660\u0660", "contains no saved data"),
        (f"{HASH}  dmesg.txt.{'9' * 5000}", "contains no saved data"),
        (f"{HASH}  dmesg.txt.0000", "contains no saved data"),
        (f"{HASH}  dmesg.txt.999999", "cannot restore vmcore-dmesg.txt: dmesg.txt.000 is missing"),
        (f"{HASH}  dmesg.txt.000\n{HASH}  dmesg.txt.gpg.000", "dmesg.txt.gpg.000 is missing"),
        ("", "contains no saved data"),
        (None, "is not a dump: it has no SHA256SUMS"),
    ],
)
def test_wrong_checksums(restoring: Restore, dump: Dump, lines: str | None, says: str) -> None:
    if lines is not None:
        (dump.path / SUMS).write_text(lines)
    said = restoring("--plain")
    assert (said.status, said.files) == (1, [])
    assert says in said.errors[0]


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_checksums_that_are_not_a_regular_file(restoring: Restore, dump: Dump, kind: str) -> None:
    """Nothing writes to the pipe, and the target of the link never ends."""
    sums = dump.path / SUMS
    match kind:
        case "link":
            sums.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(sums)
        case _:
            sums.mkdir()
    assert "contains no saved data (name a directory" in restoring().errors[0]


def test_a_missing_directory_is_an_error(restoring: Restore, dump: Dump) -> None:
    dump.path.rmdir()
    assert restoring().errors == [f"tinykdump: {dump.path}: No such file or directory (name a "
                                  "directory tinykdump/MACHINE/TIME on the stick)"]  # fmt: skip


def test_a_directory_that_somebody_makes_meanwhile(
    restoring: Restore, dump: Dump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all users can write to /var/crash: what is restored must not be in a directory of
    theirs."""
    dump.add("dmesg.txt.gpg", LOG)
    restoring.output.mkdir(parents=True)
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    said = restoring()
    assert (said.status, said.files) == (1, [])
    assert said.errors == [f"tinykdump: {restoring.output}: File exists (name a new one)"]


def test_two_to_the_same_directory(restoring: Restore, dump: Dump) -> None:
    dump.add("dmesg.txt.gpg", LOG)
    restoring.output.mkdir(parents=True)
    partial = restoring.output / "vmcore-dmesg.txt.partial"
    partial.write_text("of the first one")
    with alone(restoring.output):
        said = restoring()
    says = f"tinykdump: a dump is being restored to {restoring.output} (wait for it)"
    assert said == Said(1, [partial.name], [says])
    assert partial.read_text() == "of the first one"


def test_a_directory_that_cannot_be_locked(
    restoring: Restore, dump: Dump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS."""

    def refuse(*_: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    dump.add("vmcore.flat.gpg", flat(CORE))
    monkeypatch.setattr("fcntl.flock", refuse)
    assert restoring() == Said(0, ["vmcore"], [])


def test_the_log_that_an_earlier_try_left(restoring: Restore, dump: Dump) -> None:
    """Is no reason to stop, and that of another dump is."""
    dump.add("dmesg.txt.gpg", LOG)
    dump.add("vmcore.flat.gpg", flat(CORE))
    restoring.output.mkdir(parents=True)
    (restoring.output / "vmcore-dmesg.txt").write_bytes(LOG[:-1] + b"!")
    said = restoring()
    assert (said.status, said.files) == (1, ["vmcore-dmesg.txt"])
    assert "vmcore-dmesg.txt exists (name another directory with" in said.errors[0]
    assert (restoring.output / "vmcore-dmesg.txt").read_bytes() != LOG
    (restoring.output / "vmcore-dmesg.txt").write_bytes(LOG)
    assert restoring() == Said(0, ["vmcore", "vmcore-dmesg.txt"], [])


def test_a_little_that_would_fill_the_disk(restoring: Restore, dump: Dump) -> None:
    """A byte in each block: no makedumpfile writes that."""
    dump.add("vmcore.flat.gpg", flat([(place << 12, b"x") for place in range(20_000)]))
    said = restoring()
    assert (said.status, said.files) == (1, ["vmcore-incomplete"])
    assert "its pieces are too small for their places" in said.errors[0]
    written = (restoring.output / "vmcore-incomplete").stat().st_blocks * 512
    assert written < 4 * sum(path.stat().st_size for path in dump.path.iterdir()) + (2 << 20)


@pytest.mark.parametrize("name", ["vmcore-dmesg.txt", "vmcore", "vmcore-incomplete"])
def test_nothing_is_overwritten(restoring: Restore, dump: Dump, name: str) -> None:
    dump.add("dmesg.txt.gpg", LOG)
    dump.add("vmcore.flat.gpg", flat(CORE))
    restoring.output.mkdir(parents=True)
    (restoring.output / name).symlink_to("/nowhere")
    said = restoring()
    assert (said.status, said.files) == (1, [name])
    assert f"{restoring.output / name} exists (name another" in said.errors[0]


@pytest.mark.parametrize(
    ("core", "says"),
    [
        (b"not a core" * 1000, "it is not in the flattened format"),
        (flat([(1 << 46, b"x")]), "it contains an invalid offset or size"),
        (flat([])[:-1] + b"\xfe", "it contains an invalid offset or size"),
        (b"", "no data was provided"),
    ],
)  # fmt: skip
def test_data_that_is_not_a_vmcore(restoring: Restore, dump: Dump, core: bytes, says: str) -> None:
    if core:
        dump.add("vmcore.flat.gpg", core)
    else:
        dump.put("vmcore.flat.gpg", b"\0")
    said = restoring()
    assert (said.status, said.files) == (1, [])
    assert said.errors[0].startswith("tinykdump: cannot restore vmcore: ")
    assert says in said.errors[0]


def test_the_sums_of_a_thousand_parts(dump: Dump) -> None:
    """Of a dump of 4 TiB on FAT: they are more than 64 KiB."""
    dump.put("vmcore.flat", b"12" * 550, part=1)
    (stream,) = look(dump.path).streams
    assert (len(stream.parts), stream.missing) == (1100, "")
    assert all(part.sums for part in stream.parts)


def test_data_that_unpacks_to_more_than_its_parts_is_cut_off(
    restoring: Restore, dump: Dump
) -> None:
    """Anybody can compress endless data and encrypt it to the public key."""
    bomb = dump.keys.gpg("--trust-model", "always", "-r", "good@example.org", "--encrypt",
                         "--compress-algo", "zlib", stdin=bytes(50 << 20))  # fmt: skip
    dump.put("dmesg.txt.gpg", bomb)
    said = restoring()
    assert said.status == 1
    assert "it contains more than its size" in said.errors[0]
    assert said.files == []


def small(path: Path, size: int) -> None:
    """Mount a tmpfs of ``size`` bytes at ``path``."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_an_output_without_space(restoring: Restore, dump: Dump) -> None:
    """The error comes before the vmcore is written, and the log is restored."""
    dump.add("dmesg.txt.gpg", LOG)
    dump.add("vmcore.flat.gpg", flat([(0, os.urandom(3 << 20))]))
    small(restoring.output, 2 << 20)
    try:
        said = restoring()
        assert (said.status, said.files) == (1, ["vmcore-dmesg.txt"])
        assert said.errors == [
            f"tinykdump: cannot restore vmcore: {restoring.output} has 1 MiB free, "
            "4 MiB are needed (name another directory with --output)"
        ]
    finally:
        subprocess.run(["umount", restoring.output], check=True)


def test_an_output_that_takes_no_large_files(dump: Dump, tmp_path: Path) -> None:
    """As FAT; here it is a limit of the process."""
    dump.add("vmcore.flat.gpg", flat(CORE))
    argv = ["prlimit", "--fsize=1000", sys.executable, "-m", "tinykdump", "restore",
            str(dump.path), "-o", str(tmp_path / "out"), "--keys", str(dump.keys.home)]  # fmt: skip
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": SOURCE}, capture_output=True,
                          text=True, check=False)  # fmt: skip
    says = "File too large (name a directory of another file system with --output)"
    assert done.stderr == f"tinykdump: {tmp_path}/out/vmcore: {says}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("suffix", [".gpg", ""])
def test_an_output_that_becomes_full(
    restoring: Restore, dump: Dump, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Another program fills it meanwhile. Nothing that looks like a dump stays."""
    dump.add(f"vmcore.flat{suffix}", flat([(0, os.urandom(3 << 20))]))
    monkeypatch.setattr("tinykdump.output._check_room", lambda *_: None)
    small(restoring.output, 2 << 20)
    try:
        said = restoring("--plain")
        assert (said.status, said.files) == (1, [])
        assert said.errors == [f"tinykdump: {restoring.output}/vmcore: No space left on device "
                               "(check its free space)"]  # fmt: skip
    finally:
        subprocess.run(["umount", restoring.output], check=True)


CONTENTS = st.one_of(st.binary(max_size=200), st.just(flat(CORE[:1])), st.just(flat([])))
FILES = st.dictionaries(
    st.sampled_from([SUMS, README, "x"]
                    + [part_name(stream, stream == "crash-kernel.txt", number)
                       for stream in STREAMS for number in range(3)]),
    CONTENTS,
)  # fmt: skip
LINES = st.lists(
    st.builds("{}  {}.{:03d}\n".format, st.sampled_from([HASH, HASH[1:], "é"]),
              st.sampled_from(["dmesg.txt", "vmcore.flat", "../x"]), st.integers(0, 10**7))
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=FILES, lines=LINES)
def test_any_content_of_the_stick(
    keys: Keyring, tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes],
    lines: list[str],
) -> None:  # fmt: skip
    """It ends with an error or with files, and no file that is incomplete has a complete one's
    name."""
    top = tmp_path_factory.mktemp("any")
    (top / "dump").mkdir()
    for name, content in ({SUMS: "".join(lines).encode()} | files).items():
        (top / "dump" / name).write_bytes(content)
    try:
        done = restore(look(top / "dump"), top / "out", [keys.home], plain=True)
    except TinykdumpError:
        done = Restored((), (), ())
    assert names(top / "out") == sorted(path.name for path in done.files)
    whole = {*STREAMS.values()} & set(names(top / "out"))
    assert not whole, "HASH is not the checksum of any content"


def test_how_to_read_it_is_said(restoring: Restore, dump: Dump) -> None:
    """On standard error: programs read the names of the files."""
    dump.add("vmcore.flat.gpg", flat([(0, kdump(TEXT))]))
    said = restoring()
    assert (said.status, said.files) == (0, ["vmcore"])
    core = restoring.output / "vmcore"
    assert said.errors[0] == "read it with:"
    assert said.errors[1].endswith(f" {core}")
    assert "    apt install linux-image-6.12.1+deb13-amd64-dbg" in said.errors
