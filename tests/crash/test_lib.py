# SPDX-License-Identifier: GPL-2.0-or-later
"""The functions of src/crash/lib.sh, run by the real busybox on directory trees."""

import hashlib
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import fakehost
from tests.keyring import Keyring
from tinykdump import keys as keys_of_tinykdump
from tinykdump.crashlog import CrashLog
from tinykdump.dump import SUMS, is_complete, is_dump, of_machine, parse_sums
from tinykdump.image.makedumpfile import renamed
from tinykdump.parts import look

LIB = Path(__file__).parents[2] / "src/crash/lib.sh"
MACHINE = "0123456789ab"
BLOCK = 65536  # bytes, the unit of CHUNK

# The values of /etc/tinykdump.conf, and functions that replace what must not happen on this
# machine: the shell prefers functions to applets and programs. sleep skips only the ten seconds of
# show_progress, which would outlive its stage. busybox must not install its links.
PREAMBLE = """\
exec 9>&1
KMSG=/proc/self/fd/9 SYS={top}/sys DEV={top}/dev STICK={top}/stick TMP={top}/tmp
SYSRQ={top}/sysrq
MACHINE=0123456789ab ROOT_UUID= TARGET_TAG=LABEL TARGET_VALUE=TINYKDUMP FILESYSTEMS=vfat
WAIT=1 KEEP=0 COMPRESSION=-l LEVEL=31 KEY_TIME= SCRIPT= SCRIPT_WAIT=1 STALL=2
FINAL_ACTION=reboot
. {lib}
reboot() {{ say "ACTION reboot $*"; }}
poweroff() {{ say "ACTION poweroff $*"; }}
halt() {{ say "ACTION halt $*"; }}
umount() {{ say "UMOUNT $*"; }}
sync() {{ :; }}
sleep() {{ [ "$1" != 10 ] && command sleep "$1"; }}
busybox() {{ :; }}
DUMP={top}/stick/dump.partial MINE={top}/stick/tinykdump/0123456789ab
"""


@dataclass(frozen=True)
class Crash:
    """The file systems of a crash kernel, below a directory."""

    top: Path

    @property
    def stick(self) -> Path:
        return self.top / "stick"

    @property
    def dump(self) -> Path:
        return self.stick / "dump.partial"

    @property
    def dumps(self) -> Path:
        return of_machine(self.stick, MACHINE)

    def run(self, script: str, stdin: bytes = b"") -> tuple[int, str]:
        """Run a script in busybox's shell; returns its status and the kernel's log.

        The shell is PID 1 of a namespace, because it kills every process that it sees.
        """
        text = PREAMBLE.format(top=self.top, lib=LIB) + script
        done = subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", fakehost.real("busybox"), "sh", "-c",
             text], input=stdin, capture_output=True, check=False, timeout=60,
            env={"PATH": f"{self.top}/bin:/usr/bin:/bin"},
        )  # fmt: skip
        return done.returncode, done.stdout.decode()

    def sums(self) -> dict[str, str]:
        """The sums of the dump as `tinykdump restore` reads them: name -> sum."""
        found = parse_sums((self.dump / SUMS).read_text())
        return {name: digest for name, (digest,) in found.items()}


@pytest.fixture(scope="session")
def applets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with busybox under the name of each applet, for the start of PATH."""
    path = tmp_path_factory.mktemp("applets")
    subprocess.run([fakehost.real("busybox"), "--install", "-s", path], check=True)
    return path


@pytest.fixture
def crash(applets: Path, short_path: Path) -> Iterator[Crash]:
    for name in ("tmp", "sys", "dev", "stick/dump.partial"):
        (short_path / name).mkdir(parents=True, mode=0o700)
    (short_path / "bin").symlink_to(applets)
    yield Crash(short_path)


@pytest.fixture
def full_stick(crash: Crash) -> Iterator[Crash]:
    """A stick with room for one block."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={BLOCK}", "none", crash.dump], check=True)
    yield crash
    subprocess.run(["umount", crash.dump], check=True)


@pytest.fixture
def short_medium(crash: Crash) -> Iterator[Crash]:
    """A block device of 64 MiB whose backing file cannot grow beyond 12 MiB. The kernel gets a
    write error when it writes back data that dd has already written."""
    backing, size = crash.top / "backing", 12 << 20
    backing.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", backing], check=True)
    image = backing / "stick.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext2", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, crash.stick], check=True)
    crash.dump.mkdir()
    yield crash
    subprocess.run(["umount", crash.stick], check=True)
    # The loop device closes its file a moment later.
    subprocess.run(["umount", "--lazy", backing], check=True)


@pytest.fixture
def read_only_stick(crash: Crash) -> Iterator[Crash]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", crash.stick], check=True)
    yield crash
    subprocess.run(["umount", crash.stick], check=True)


# --- write_parts, encrypt, save ---------------------------------------------------------

SAVE = 'save x produce || say "FAILED $CAUSE: $FAILURE"; say went on'


@pytest.mark.parametrize(
    ("size", "chunk", "chunks", "parts"),
    [
        (1, 1, "2", [1]),
        (2 * BLOCK, 1, "2", [2 * BLOCK]),
        (2 * BLOCK + 1, 1, "2", [2 * BLOCK, 1]),
        (5 * BLOCK, 1, "2", [2 * BLOCK, 2 * BLOCK, BLOCK]),
        (5 * BLOCK + 7, 1, "", [5 * BLOCK + 7]),
        (5 * BLOCK + 7, 2, "1", [2 * BLOCK, 2 * BLOCK, BLOCK + 7]),
        (4 * BLOCK, 2, "", [4 * BLOCK]),
    ],
)
def test_parts(crash: Crash, size: int, chunk: int, chunks: str, parts: list[int]) -> None:
    data = bytes(number % 251 for number in range(size))
    script = f"CHUNK={chunk} PART_CHUNKS={chunks}; write_parts x || :"
    assert crash.run(script, data) == (0, "")
    files = sorted(crash.dump.glob("x.*"))
    assert [path.name for path in files] == [f"x.{number:03d}" for number in range(len(parts))]
    assert [path.stat().st_size for path in files] == parts
    assert b"".join(path.read_bytes() for path in files) == data
    assert crash.sums() == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_nothing_is_written_after_the_first_error_of_a_stick(full_stick: Crash) -> None:
    """The input never ends: only giving up ends this test."""
    status, log = full_stick.run(f"produce() {{ yes; }}; {SAVE}")
    assert status == 0, log
    assert "FAILED stick: writing x.000: dd: " in log
    assert [path.name for path in full_stick.dump.glob("x.*")] == ["x.000"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("produce() { :; }", "read: x is empty"),
        ("produce() { echo data; echo 'no vmcore' >&2; return 3; }", "read: produce: no vmcore"),
        ("produce() { echo data; }; KEY_TIME=20260101T000000", "gpg: gpg: "),
        ("produce() { echo data; }; DUMP=$TMP/none", "stick: writing x.000: dd: "),
        # Only the first cause is reported: SIGPIPE then ends the producer.
        ("produce() { yes; return 1; }; DUMP=$TMP/none", "stick: writing x.000: dd: "),
    ],
)
def test_save_says_what_failed(crash: Crash, script: str, says: str) -> None:
    status, log = crash.run(f"{script}; {SAVE}")
    assert status == 0, log
    assert f"FAILED {says}" in log
    assert "went on" in log


def test_save_on_a_full_stick(full_stick: Crash) -> None:
    _, log = full_stick.run(f"produce() {{ yes | head -c 1000000; }}; {SAVE}")
    assert "FAILED stick: writing x.000: dd: " in log
    assert "No space left" in log


def test_a_dump_whose_write_back_fails_is_not_saved(short_medium: Crash) -> None:
    """30 MB do not fit. dd and sync(2) do not report the error, and the old dump stays."""
    crash = short_medium
    old = crash.dumps / "20260101T000000Z"
    old.mkdir(parents=True)
    (old / "SHA256SUMS").touch()
    status, log = crash.run(
        "read_log() { echo log; }; read_memory() { head -c 30000000 /dev/urandom; }; KEEP=1;"
        f"{OPEN}; save_log; save_memory; publish; remove_old_dumps"
    )
    assert status == 1
    assert "failed: could not save the memory: writing vmcore.flat.000: dd: " in log
    assert "saved as" not in log
    assert old.exists()
    assert [path.name for path in crash.dumps.glob("*Z")] == [old.name]


def test_data_that_cannot_be_read_back_gets_no_checksum(crash: Crash) -> None:
    """Nobody would notice that the checksum is wrong before the dump is restored."""
    dd = 'dd() { case $* in *" if="*) echo EIO >&2; return 1 ;; esac; command dd "$@"; };'
    _, log = crash.run(f"{dd} produce() {{ echo data; }}; {SAVE}")
    assert "FAILED stick: reading x.000 back: EIO\n" in log


def test_save_without_encryption(crash: Crash) -> None:
    assert crash.run("produce() { echo data; echo noise >&2; }; save x produce") == (0, "")
    assert (crash.dump / "x.000").read_text() == "data\n"


@pytest.mark.parametrize("user", ["good", "expired"])
def test_encrypt(crash: Crash, keys: Keyring, user: str) -> None:
    """The clock does not matter: one key is valid now, the other was valid long ago."""
    key = crash.top / "key"
    key.write_bytes(keys.public(f"{user}@example.org"))
    valid_at = keys_of_tinykdump.last_change(key.read_bytes())
    # The path of the key is the only one that is not a variable.
    wrapper = f"""
    gpg() {{
        for word; do
            shift; [ "$word" != /etc/tinykdump.key ] || word={key}; set -- "$@" "$word"
        done
        env -i PATH="$PATH" gpg "$@"
    }}
    KEY_TIME={valid_at}; produce() {{ echo secret; }}; save x produce
    """
    assert crash.run(wrapper) == (0, "")
    packed = (crash.dump / "x.gpg.000").read_bytes()
    assert b"secret" not in packed
    assert keys.gpg("--decrypt", stdin=packed) == b"secret\n"
    assert list(crash.sums()) == ["x.gpg.000"]
    assert not list((crash.top / "tmp").glob("S.*")), "an agent was started"


# --- hardware ---------------------------------------------------------------------------


def test_modules_are_loaded_in_order_and_with_their_parameters(crash: Crash) -> None:
    order, first, second = (crash.top / name for name in ("order", "a.ko", "b.ko.xz"))
    order.write_text(f'{first} size=1 name="x  *"\n{second}\n')
    first.touch()
    second.touch()
    # busybox's insmod joins its arguments again; the shell must not interpret them.
    insmod = f'insmod() {{ say "$# $*"; [ "$1" = {first} ]; }};'
    status, log = crash.run(f"{insmod} MODULES={order}; load_modules")
    assert status == 0, log
    assert log.splitlines() == [
        f'<5>tinykdump: 2 {first} size=1 name="x  *"',
        f"<5>tinykdump: 1 {second}",
        f"<5>tinykdump: could not load {second}",
    ]
    assert not first.exists()
    assert not second.exists()


# --- the stick --------------------------------------------------------------------------


def test_only_disks_behind_usb_keep_their_nodes(crash: Crash) -> None:
    disks = {
        "sda": "pci0000:00/0000:00:1f.2/ata1/host0/block/sda",
        "sdb": "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host6/block/sdb",
        "sdb1": "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/host6/block/sdb/sdb1",
        "nvme0n1": "pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1",
        "usbdisk": "virtual/block/usbdisk",
        "dm-0": "virtual/block/dm-0",
    }
    classes = crash.top / "sys/class/block"
    classes.mkdir(parents=True)
    for name, path in disks.items():
        device = crash.top / "sys/devices" / path
        device.mkdir(parents=True)
        (device / "uevent").write_text(f"MAJOR=8\nDEVNAME={name}\nDEVTYPE=disk\n")
        (classes / name).symlink_to(device)
        (crash.top / "dev" / name).touch()
    (crash.top / "dev/null").touch()
    assert crash.run("hide_other_disks") == (0, "")
    left = sorted(path.name for path in (crash.top / "dev").iterdir())
    assert left == ["null", "sdb", "sdb1"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("findfs() { return 1; }", "failed: no stick LABEL=TINYKDUMP within 1 s"),
        ("findfs() { echo /dev/sdx; }; ROOT_UUID=1", "/dev/sdx is the root file system"),
        ("findfs() { [ $1 = LABEL=TINYKDUMP ] && echo /dev/sdx; }; ROOT_UUID=1", "found the stick"),
        ("findfs() { echo /dev/sdx; }", "found the stick: /dev/sdx"),
    ],
)
def test_wait_for_stick(crash: Crash, script: str, says: str) -> None:
    status, log = crash.run(f"{script}; wait_for_stick")
    assert says in log
    assert status == (0 if "found" in says else 1)


def test_it_waits_for_the_stick_as_long_as_it_is_told(crash: Crash) -> None:
    start = time.monotonic()
    crash.run("findfs() { return 1; }; wait_for_stick")
    assert time.monotonic() - start > 0.7  # it looks five times in that second


def test_controllers_are_reset_when_no_stick_comes(crash: Crash) -> None:
    driver = crash.top / "sys/bus/pci/drivers/xhci_hcd"
    (driver / "0000:00:03.0").mkdir(parents=True)
    crash.run("findfs() { return 1; }; wait_for_stick")
    assert (driver / "unbind").read_text() == (driver / "bind").read_text() == "0000:00:03.0\n"


MOUNT = """
mount() {
    say "mount $*"
    case $* in *"-t ext4"*) return 0 ;; esac
    echo bad superblock >&2
    return 32
}
DEVICE=/dev/sdx
"""


@pytest.mark.parametrize(
    ("types", "status", "says"),
    [
        ("vfat ext4", 0, "cannot mount it as vfat: bad superblock"),
        ("vfat", 1, "failed: cannot mount /dev/sdx with any file system of this image: vfat"),
    ],
)
def test_mount_stick(crash: Crash, types: str, status: int, says: str) -> None:
    found, log = crash.run(f"{MOUNT} FILESYSTEMS='{types}'; mount_stick")
    assert found == status
    assert says in log
    options = "nosuid,nodev,noexec,noatime,dirsync,codepage=437,iocharset=ascii"
    assert f"mount -t vfat -o {options}" in log


def test_mount_exfat(crash: Crash) -> None:
    """With a character set that is a part of the driver, whatever the kernel's default is."""
    _, log = crash.run(f"{MOUNT} FILESYSTEMS=exfat; mount_stick; say parts: ${{PART_CHUNKS:-all}}")
    assert "mount -t exfat -o nosuid,nodev,noexec,noatime,dirsync,iocharset=utf8" in log


# --- the dump's directory ---------------------------------------------------------------

OPEN = 'date() { echo 20260102T030405Z; }; open_dump_directory; say "DUMP ${DUMP#"$STICK"/}"'
TIME = "20260102T030405Z"


@pytest.mark.parametrize(
    ("there", "name"),
    [
        ([], TIME),
        ([TIME], f"{TIME}-1"),
        ([f"{TIME}.partial"], f"{TIME}-1"),
        ([TIME, f"{TIME}-1.partial"], f"{TIME}-2"),
    ],
)
def test_nothing_is_overwritten(crash: Crash, there: list[str], name: str) -> None:
    for old in there:
        (crash.dumps / old).mkdir(parents=True)
    status, log = crash.run(OPEN)
    assert status == 0, log
    assert f"DUMP tinykdump/{MACHINE}/{name}.partial\n" in log
    assert (crash.dumps / f"{name}.partial/SHA256SUMS").read_bytes() == b""


@pytest.mark.parametrize("link", ["tinykdump", f"tinykdump/{MACHINE}"])
def test_a_link_on_the_stick_is_not_followed(crash: Crash, link: str) -> None:
    elsewhere = crash.top / "elsewhere"
    elsewhere.mkdir()
    (crash.stick / link).parent.mkdir(exist_ok=True)
    (crash.stick / link).symlink_to(elsewhere)
    status, log = crash.run(OPEN)
    assert status == 1
    assert "failed: the stick has a link where the dumps should be" in log
    assert list(elsewhere.iterdir()) == []


def test_a_stick_that_cannot_be_written(read_only_stick: Crash) -> None:
    status, log = read_only_stick.run(OPEN)
    assert status == 1
    assert "failed: cannot write to the stick: mkdir: " in log


def test_a_stick_on_which_no_file_can_be_made(crash: Crash) -> None:
    """It takes directories only. A failed redirection would end the shell without a message."""
    tmpfs = f"mount -t tmpfs -o nr_inodes=4 none {crash.stick}"
    status, log = crash.run(f"{tmpfs} && {OPEN}")
    assert status == 1
    assert "failed: cannot write to the stick: dd: " in log


def test_publish(crash: Crash) -> None:
    status, log = crash.run(f"{OPEN}; publish; [ -e $TMP/saved ]")
    assert status == 0, log
    assert log.endswith(f"saved as tinykdump/{MACHINE}/{TIME}\n")
    assert [path.name for path in crash.dumps.iterdir()] == [TIME]


def test_the_log_tells_how_fast_it_was(crash: Crash) -> None:
    """For the estimate of the next dump."""
    status, log = crash.run(
        "read_memory() { head -c 3000000 /dev/urandom; };"
        f"{OPEN}; stage 'saving the memory'; save vmcore.flat read_memory; publish"
    )
    assert status == 0, log
    lines = [line.removeprefix("<5>") for line in log.splitlines()]
    raw = "\n".join(f"<13>[{at:5}.000000] {line}" for at, line in enumerate(lines))
    saved = re.sub(r"\[[0-9.]+ s\] saved", "[1000000000.00 s] saved", raw)
    assert 0 < CrashLog(saved, is_whole=True).rate < 1
    assert re.search(r"the dump takes [3-4] MiB$", raw, re.MULTILINE)


@pytest.mark.parametrize(
    ("keep", "new", "left"),
    [
        (0, "3Z", ["1Z", "2Z", "2Z-1", "3Z"]),
        (4, "3Z", ["1Z", "2Z", "2Z-1", "3Z"]),
        (3, "3Z", ["2Z", "2Z-1", "3Z"]),
        (1, "3Z", ["3Z"]),
        # The clock was ahead when the others were saved.
        (2, "1Z", ["1Z", "3Z"]),
        (1, "1Z", ["1Z"]),
    ],
)
def test_no_more_than_keep_dumps_stay(crash: Crash, keep: int, new: str, left: list[str]) -> None:
    others = ["0Z.partial", "0Z-incomplete", "notes"]
    for name in ("1Z", "2Z", "2Z-1", "3Z"):
        (crash.dumps / name).mkdir(parents=True)
        (crash.dumps / name / "SHA256SUMS").touch()
    for name in others:
        (crash.dumps / name).mkdir()
    neighbour = crash.stick / "tinykdump/another/0Z"
    neighbour.mkdir(parents=True)
    (neighbour / "SHA256SUMS").touch()
    status, _ = crash.run(f"KEEP={keep} FINAL_NAME={crash.dumps}/{new}; remove_old_dumps")
    assert status == 0
    assert sorted(path.name for path in crash.dumps.iterdir()) == sorted([*others, *left])
    assert neighbour.exists()


# --- makedumpfile -----------------------------------------------------------------------

OLD, NEW = b"OFFSET(page.compound_head)=", b"OFFSET(page.compound_info)="
PROGRAM = b"\x7fELF\0" + OLD + b"\0\xff\n" + OLD + b"%ld\n\0"
NOTE = struct.pack("<III12s", 12, 0, 0, b"VMCOREINFO") + b"OSRELEASE=7\n"


def vmcore(notes: bytes) -> bytes:
    """The start of /proc/vmcore: ELF header, program header of the notes, notes, then memory."""
    headers = bytes(64) + struct.pack("<IIQQQQQQ", 4, 0, 4096, 0, 0, len(notes), len(notes), 0)
    return headers.ljust(4096, b"\0") + notes.ljust(-len(notes) % 4096 + len(notes), b"\0")


@pytest.mark.parametrize(
    ("core", "taught"),
    [
        (vmcore(NOTE + NEW + b"8\n"), True),
        (vmcore(bytes(70_000) + NOTE + b"SIZE(page)=64\n" + NEW + b"8\n"), True),
        (vmcore(NOTE + OLD + b"8\n"), False),
        (vmcore(NOTE + OLD + b"8\n") + b"\n" + NEW + b"8\n", False),  # in memory, not in the notes
    ],
)
def test_makedumpfile_is_patched_for_the_crashed_kernel(
    crash: Crash, core: bytes, taught: bool
) -> None:
    names = {name: crash.top / name for name in ("VMCORE", "MAKEDUMPFILE", "RENAMED")}
    names["VMCORE"].write_bytes(core)
    names["MAKEDUMPFILE"].write_bytes(PROGRAM)
    names["RENAMED"].write_text("".join(f"{offset}\n" for offset in renamed(PROGRAM)))
    settings = " ".join(f"{name}={path}" for name, path in names.items())
    status, log = crash.run(f"{settings}; teach_makedumpfile")
    assert status == 0, log
    assert ("patched makedumpfile" in log) == taught
    expected = PROGRAM.replace(OLD + b"\0", NEW + b"\0") if taught else PROGRAM
    assert names["MAKEDUMPFILE"].read_bytes() == expected


def test_a_makedumpfile_that_knows_the_name_is_not_patched(crash: Crash) -> None:
    """It does not read the vmcore."""
    assert crash.run("RENAMED=/dev/null VMCORE=/none; teach_makedumpfile") == (0, "")


# --- the script, and the end ------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo hello from $1", "hello from {stick}\n"),
        ("exit 7", "the script ended with status 7; going on\n"),
        ("exec sleep 30", "the script ended with status 143; going on\n"),
        ("trap '' TERM; while :; do :; done", "the script ended with status 137; going on\n"),
        ("cat; pwd", "/\n"),
    ],
)
def test_the_script_never_ends_the_dump(crash: Crash, body: str, says: str) -> None:
    script = crash.top / "script"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    status, log = crash.run(f"echo 2 >$TMP/patience; SCRIPT={script}; run_script; say went on")
    assert status == 0, log
    assert says.format(stick=crash.stick) in log
    assert log.endswith("went on\n")


def test_no_process_of_the_script_stays(crash: Crash) -> None:
    """Not even a process in the background that ignores SIGTERM."""
    script = crash.top / "script"
    script.write_text("#!/bin/sh\n(trap '' TERM; sleep 3; echo late >$1/late) &\nsleep 30\n")
    script.chmod(0o755)
    crash.run(f"echo 2 >$TMP/patience; SCRIPT={script}; run_script; command sleep 4")
    assert not (crash.stick / "late").exists()


# --- the supervisor and the end ---------------------------------------------------------

STAGES = ("load_modules", "mount_pstore", "wait_for_stick", "mount_stick", "run_script",
          "open_dump_directory", "teach_makedumpfile", "save_log", "save_memory", "publish",
          "remove_old_dumps")  # fmt: skip

# src/crash/init, without the lines that replace the functions of a test.
INIT = (LIB.parent / "init").read_text().replace("/etc/tinykdump.conf", "/dev/null")
INIT = INIT.replace(". /lib/tinykdump.sh", "").replace("set_paths\n", "")
INIT = INIT.replace("mount_kernel_interfaces\n", "").replace("leave_stick 60", "leave_stick 2")


def init(crash: Crash, script: str, real: Sequence[str] = ()) -> str:
    """Run src/crash/init with the stages in ``real``, and with those that ``script`` defines;
    returns the log."""
    nothing = "".join(f"{stage}() {{ :; }}\n" for stage in STAGES if stage not in real)
    _, log = crash.run(f"{nothing}\n{script}\n{INIT}")
    return log


@pytest.mark.parametrize(
    ("script", "outcome", "says"),
    [
        ("publish() { touch $TMP/saved; }", "saved", ""),
        ("run_script() { die nothing works; }", "failed", "failed: nothing works\n"),
        ("run_script() { exit 3; }", "failed", "failed: the dump ended with status 3\n"),
        ("run_script() { set -u; : $unset; }", "failed", "failed: the dump ended with status"),
        ("run_script() { : >/none/x; }", "failed", "failed: the dump ended with status"),
        ("run_script() { exec sh -c 'kill -9 $$'; }", "failed", "failed: the dump ended with"),
        # No progress: a write hangs, or something else.
        ("save_memory() { command sleep 50; }", "failed", "failed: no progress for "),
        ("save_memory() { trap '' TERM INT; while :; do :; done; }", "failed", "failed: no pro"),
    ],
)
def test_every_path_ends_in_the_final_action(
    crash: Crash, script: str, outcome: str, says: str
) -> None:
    log = init(crash, script)
    assert says in log
    assert log.count("failed: ") == (outcome == "failed")
    assert f"dump {outcome}; final action: reboot\n" in log
    assert log.endswith("ACTION reboot -n -f\n")
    assert f"UMOUNT {crash.stick}\n" in log


@pytest.mark.parametrize("action", ["poweroff", "halt"])
def test_other_final_actions(crash: Crash, action: str) -> None:
    log = init(crash, f"FINAL_ACTION={action}")
    assert f"dump failed; final action: {action}\n" in log
    assert log.endswith(f"ACTION {action} -n -f\n")


def test_a_stick_that_hangs_does_not_prevent_the_final_action(crash: Crash) -> None:
    hang = "command sleep 50"
    log = init(crash, f"save_log() {{ {hang}; }}; umount() {{ {hang}; }}")
    assert log.count("failed: no progress for ") == 2
    assert log.endswith("ACTION reboot -n -f\n")


def test_a_reboot_that_hangs_is_forced(crash: Crash) -> None:
    """A driver waits for its device."""
    wait = 'sleep() { [ "$1" != 30 ] || set -- 1; command sleep "$1"; }'
    init(crash, f"{wait}; reboot() {{ command sleep 3; }}")
    assert (crash.top / "sysrq").read_text() == "b\n"


@pytest.mark.parametrize(("action", "key"), [("reboot", "b"), ("poweroff", "o"), ("halt", "")])
def test_a_busybox_without_the_final_actions(crash: Crash, action: str, key: str) -> None:
    """As SUSE's. A halted machine does nothing any more, which ends here with the sleep."""
    sleeps = (
        'sleep() { case $1 in 30 | 3600) say "SLEEP $1"; false ;; *) command sleep 0.1 ;; esac; }'
    )
    missing = f"{action}() {{ echo '{action}: applet not found' >&2; return 127; }}"
    log = init(crash, f"FINAL_ACTION={action}; {sleeps}; {missing}")
    assert f"tinykdump: {action}: applet not found\n" in log
    assert ("SLEEP 3600" in log) == (action == "halt")
    pressed = crash.top / "sysrq"
    assert (pressed.read_text() if pressed.exists() else "") == key + "\n" * bool(key)


def test_a_makedumpfile_that_hangs_is_killed_and_the_memory_is_copied(crash: Crash) -> None:
    """Simulated: makedumpfile never ends, at any level."""
    applets = (crash.top / "bin").resolve()
    (crash.top / "bin").unlink()
    shutil.copytree(applets, crash.top / "bin", symlinks=True)
    hang = crash.top / "bin/makedumpfile"
    hang.write_text("#!/bin/sh\nwhile :; do sleep 1; done\n")
    hang.chmod(0o755)
    (crash.top / "core").write_bytes(b"memory")
    script = f"VMCORE={crash.top}/core; open_dump_directory() {{ echo $DUMP >$TMP/dump; }}"
    log = init(crash, script, real=("save_log", "save_memory"))
    assert log.count("killed makedumpfile: no progress for ") == 3
    assert "could not save the log: " in log
    assert "could not save the memory at level 31: " in log
    assert "trying level 1" in log
    assert "copying it" in log
    assert (crash.dump / "vmcore.000").read_bytes() == b"memory"
    assert not list(crash.dump.glob("vmcore.flat*"))


def test_a_makedumpfile_that_cannot_be_killed_does_not_prevent_the_final_action(
    crash: Crash,
) -> None:
    """Simulated: makedumpfile waits for the disk, too, so SIGKILL has no effect."""
    hang = "save_memory() { command sleep 50; }; pidof() { echo 999999; }; kill() { :; }"
    log = init(crash, hang)
    assert log.count("killed makedumpfile: no progress for ") == 1
    assert log.count("failed: no progress for ") == 1
    assert log.endswith("ACTION reboot -n -f\n")


@pytest.mark.parametrize("saved", [False, True])
def test_the_crash_kernels_log_is_saved_after_a_failure(crash: Crash, saved: bool) -> None:
    publish = "publish() { touch $TMP/saved; }" if saved else "publish() { die no; }"
    init(crash, f"dmesg() {{ echo log; }}; echo $DUMP >$TMP/dump; {publish}")
    assert (crash.dump / "crash-kernel.txt.000").exists() is not saved


# --- fallbacks --------------------------------------------------------------------------


def memory(crash: Crash, makedumpfile: str, more: str = "") -> tuple[int, str]:
    """Save the log and the memory; ``makedumpfile`` is a function body, with arguments ``$*``."""
    (crash.top / "core").write_bytes(b"all of it")
    return crash.run(
        f"makedumpfile() {{ {makedumpfile}; }}; VMCORE={crash.top}/core; {more}"
        "true >$DUMP/SHA256SUMS; FINAL_NAME=$STICK/final; save_log; save_memory; publish"
    )


def test_the_memory_is_saved_even_if_the_log_cannot_be_read(crash: Crash) -> None:
    status, log = memory(crash, 'case $* in *dmesg*) echo "no log" >&2; return 1 ;; esac; echo x')
    assert status == 0, log
    assert "could not save the log: read_log: no log; going on\n" in log
    assert log.endswith("saved as final without the log\n")
    assert (crash.stick / "final/vmcore.flat.000").read_text() == "x\n"


LEVELS = 'case $* in *dmesg*) echo log >$TMP/dmesg; return ;; *"-d {level} "*) echo x; return ;; '\
    'esac; echo half; echo "page tables are damaged" >&2; return 1'  # fmt: skip


def test_a_log_that_is_cut_off_has_no_sum(crash: Crash) -> None:
    """restore reports it; the rest of the dump is complete."""
    cut = "encrypt() { [ ! -e $TMP/log ] || { cat; return; }; touch $TMP/log; head -c 2; false; };"
    status, log = memory(crash, LEVELS.format(level=31), cut)
    assert status == 0, log
    assert log.endswith("saved as final without the log\n")
    final = crash.stick / "final"
    assert (final / "dmesg.txt.000").read_text() == "lo"
    assert list(parse_sums((final / SUMS).read_text())) == ["vmcore.flat.000"]
    assert [bool(part.sums) for stream in look(final).streams for part in stream.parts] == [
        False, True
    ]  # fmt: skip


def test_a_lower_level_is_tried_when_makedumpfile_fails(crash: Crash) -> None:
    status, log = memory(crash, LEVELS.format(level=1))
    assert status == 0, log
    assert "at level 31: read_memory: page tables are damaged; trying level 1\n" in log
    assert log.endswith("saved as final\n")
    final = crash.stick / "final"
    assert (final / "vmcore.flat.000").read_text() == "x\n"
    lines = (final / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["dmesg.txt.000", "vmcore.flat.000"]
    assert lines[1].startswith(hashlib.sha256(b"x\n").hexdigest())


def test_the_memory_is_copied_when_makedumpfile_fails_at_every_level(crash: Crash) -> None:
    status, log = memory(crash, LEVELS.format(level=99))
    assert status == 0, log
    assert log.endswith("saved as final\n")
    final = crash.stick / "final"
    assert (final / "vmcore.000").read_bytes() == b"all of it"
    assert not list(final.glob("vmcore.flat*"))


def test_more_is_filtered_when_the_stick_is_full(crash: Crash) -> None:
    """Simulated: the dump at level 0 is too large."""
    full = 'case $* in *"-d 0 "*) yes | head -c 300000 ;; *) echo x ;; esac'
    short = "free_kib() { [ -s $DUMP/vmcore.flat.000 ] && echo 0 || echo 9999999; }"
    status, log = memory(crash, full, f"LEVEL=0 CHUNK=1 SPARE=0; {short}; ")
    assert status == 0, log
    assert "at level 0: writing vmcore.flat.000: the stick is full; trying level 31\n" in log
    assert (crash.stick / "final/vmcore.flat.000").read_text() == "x\n"


@pytest.mark.parametrize("cause", ["gpg", "stick"])
def test_there_is_no_second_try_if_makedumpfile_is_not_the_cause(crash: Crash, cause: str) -> None:
    save = f"save() {{ CAUSE={cause} FAILURE=reason; say TRIED; return 1; }}"
    status, log = crash.run(f"{save}; save_memory")
    assert status == 1
    assert log.count("TRIED") == 1
    assert "failed: could not save the memory: reason\n" in log


# --- room -------------------------------------------------------------------------------


@pytest.fixture
def small_stick(crash: Crash) -> Iterator[Crash]:
    """A stick of 8 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "none", crash.stick], check=True)
    yield crash
    subprocess.run(["umount", crash.stick], check=True)


def old_dump(crash: Crash, name: str, size: int) -> Path:
    """A dump with a log and ``size`` bytes of memory."""
    path = crash.dumps / name
    path.mkdir(parents=True)
    for file, content in {"SHA256SUMS": b"", "dmesg.txt.000": b"log"}.items():
        (path / file).write_bytes(content)
    (path / "vmcore.flat.000").write_bytes(bytes(size))
    return path


def save_dump(crash: Crash, size: int, keep: int = 2) -> tuple[int, str]:
    return crash.run(
        f"read_log() {{ echo log; }}; read_memory() {{ head -c {size} /dev/zero; }}; KEEP={keep};"
        f"CHUNK=16; {OPEN}; save_log; save_memory; publish; remove_old_dumps"
    )


MIB = 1 << 20


@pytest.mark.parametrize("publish", ["publish", "true"])
def test_dump_py_recognizes_a_dump_of_src_crash(crash: Crash, publish: str) -> None:
    """restore and status look for the names in dump.py."""
    saved = f"read_log() {{ echo log; }}; read_memory() {{ echo memory; }}; {OPEN};"
    assert crash.run(f"{saved} save_log; save_memory; {publish}")[0] == 0
    (found,) = of_machine(crash.stick, MACHINE).iterdir()
    assert is_dump(found.name)
    assert is_complete(found.name) is (publish == "publish")
    content = look(found)
    assert [(stream.name, stream.missing) for stream in content.streams] == [
        ("dmesg.txt", ""), ("vmcore.flat", "")
    ]  # fmt: skip
    assert all(part.sums for stream in content.streams for part in stream.parts)
    assert content.ignored == ()


def test_a_partial_dump_makes_room_and_keeps_its_log(small_stick: Crash) -> None:
    partial = old_dump(small_stick, "20250101T000000Z.partial", 6 * MIB)
    old = old_dump(small_stick, "20240101T000000Z", MIB // 2)
    status, log = save_dump(small_stick, 4 * MIB)
    assert status == 0, log
    assert "no space: removed 20250101T000000Z.partial/vmcore.flat.000 of an incomplete" in log
    assert sorted(path.name for path in partial.iterdir()) == ["SHA256SUMS", "dmesg.txt.000"]
    assert old.exists()


def test_the_log_is_saved_on_a_full_stick(small_stick: Crash) -> None:
    """A partial dump has filled it to the last block."""
    partial = old_dump(small_stick, "20250101T000000Z.partial", 0)
    small_stick.run(f"yes >{partial}/vmcore.flat.000 2>/dev/null")
    status, log = save_dump(small_stick, 20 * MIB)
    assert status == 1
    assert "failed: could not save the memory: writing vmcore.flat.000: the stick is full\n" in log
    (new,) = (path for path in small_stick.dumps.iterdir() if path != partial)
    assert (new / "dmesg.txt.000").read_text() == "log\n"
    again, log = save_dump(small_stick, 4 * MIB)
    assert again == 0, log


def test_older_dumps_make_room_but_never_the_last_one(small_stick: Crash) -> None:
    first = old_dump(small_stick, "20240101T000000Z", 2 * MIB)
    second = old_dump(small_stick, "20250101T000000Z", 2 * MIB)
    third = old_dump(small_stick, "20250201T000000Z", 2 * MIB)
    neighbour = old_dump(small_stick, f"../another/{TIME}", MIB // 2)
    status, log = save_dump(small_stick, 3 * MIB, keep=9)
    assert status == 0, log
    assert [path.exists() for path in (first, second, third)] == [False, False, True]
    status, log = save_dump(small_stick, 7 * MIB, keep=9)
    assert status == 1
    assert "the stick is full" in log
    assert not third.exists()
    assert (small_stick.dumps / TIME).exists(), "the last complete dump was removed"
    assert neighbour.exists()


def test_keep_0_removes_no_complete_dump(small_stick: Crash) -> None:
    olds = [old_dump(small_stick, f"2024010{day}T000000Z", 2 * MIB) for day in (1, 2, 3)]
    status, _ = save_dump(small_stick, 3 * MIB, keep=0)
    assert status == 1
    assert all(old.exists() for old in olds)


@pytest.mark.parametrize("name", ["20240101T000000Z x", "2024Z\n/etc", "2024Z *"])
def test_only_names_of_dumps_are_removed(small_stick: Crash, name: str) -> None:
    """Anybody who writes to the stick chooses its names, and rm -rf takes several."""
    small_stick.dumps.mkdir(parents=True)
    hostile = small_stick.dumps / name.replace("/", "")
    hostile.mkdir()
    (hostile / "SHA256SUMS").touch()
    link = small_stick.dumps / "20230101T000000Z"
    elsewhere = small_stick.top / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "SHA256SUMS").touch()
    link.symlink_to(elsewhere)
    (small_stick.dumps / "20220101T000000Z.partial").symlink_to(elsewhere)
    (elsewhere / "vmcore.000").touch()
    assert save_dump(small_stick, 7 * MIB, keep=1)[0] == 1
    assert save_dump(small_stick, MIB, keep=1)[0] == 0
    assert hostile.exists()
    assert link.is_symlink()
    assert (elsewhere / "vmcore.000").exists()
