"""Stages of src/crash/lib.sh under the real busybox, on trees and with a real key."""

import hashlib
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import fakehost
from tests.keyring import Keyring
from tinykdump.makedumpfile import renamed

LIB = Path(__file__).parents[2] / "src/crash/lib.sh"
MACHINE = "0123456789ab"
BLOCK = 65536  # bytes, the unit of CHUNK

# What /etc/tinykdump.conf says, and then what must not happen to the machine that tests: the
# shell takes functions before applets and programs. Of sleep only show_progress is left out,
# which would outlive its stage by the rest of ten seconds.
PREAMBLE = """\
exec 9>&1
KMSG=/proc/self/fd/9 SYS={top}/sys DEV={top}/dev STICK={top}/stick TMP={top}/tmp
MACHINE=0123456789ab ROOT_UUID= TARGET_TAG=LABEL TARGET_VALUE=TINYKDUMP FILESYSTEMS=vfat
WAIT=1 KEEP=0 DUMP_FLAGS='-l -d 31' ENCRYPT= SCRIPT= SCRIPT_WAIT=1 FINAL_ACTION=reboot
. {lib}
reboot() {{ say "ACTION reboot $*"; }}
poweroff() {{ say "ACTION poweroff $*"; }}
halt() {{ say "ACTION halt $*"; }}
umount() {{ say "UMOUNT $*"; }}
sync() {{ :; }}
sleep() {{ [ "$1" != 10 ] && busybox sleep "$1"; }}
DUMP={top}/stick/dump.partial PART_CHUNKS=
"""


@dataclass(frozen=True)
class Crash:
    """The crash kernel's world, below a folder."""

    top: Path

    @property
    def stick(self) -> Path:
        return self.top / "stick"

    @property
    def dump(self) -> Path:
        return self.stick / "dump.partial"

    @property
    def dumps(self) -> Path:
        return self.stick / "tinykdump" / MACHINE

    def run(self, script: str, stdin: bytes = b"") -> tuple[int, str]:
        """The status of busybox's shell, and the kernel's log."""
        text = PREAMBLE.format(top=self.top, lib=LIB) + script
        done = subprocess.run(
            [fakehost.real("busybox"), "sh", "-c", text], input=stdin, capture_output=True,
            env={"PATH": f"{self.top}/bin:/usr/bin:/bin"}, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout.decode()

    def sums(self) -> dict[str, str]:
        """SHA256SUMS of the dump: name -> sum."""
        lines = (self.dump / "SHA256SUMS").read_text().splitlines()
        return {line.split("  ")[1]: line.split("  ")[0] for line in lines}


@pytest.fixture(scope="session")
def applets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """busybox under each of its names: they come before the programs of this machine."""
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
def read_only_stick(crash: Crash) -> Iterator[Crash]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", crash.stick], check=True)
    yield crash
    subprocess.run(["umount", crash.stick], check=True)


# --- write_parts, encrypt, save ---------------------------------------------------------


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


def test_the_first_error_of_a_stick_is_the_last_write(full_stick: Crash) -> None:
    """Data without an end: only giving up ends this."""
    status, log = full_stick.run("ENCRYPT=; produce() { yes; }; save x produce")
    assert status == 1
    assert "x is not complete: " in log
    assert "writing x.000: dd: " in log
    assert [path.name for path in full_stick.dump.glob("x.*")] == ["x.000"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("produce() { :; }", "x is not complete: x is empty"),
        ("produce() { echo data; echo 'no vmcore' >&2; return 3; }", "produce: no vmcore"),
        ("produce() { echo data; }; ENCRYPT=yes", "x is not complete: gpg: "),
        ("produce() { echo data; }; DUMP=$TMP/none", "writing x.000"),
    ],
)
def test_save_says_what_failed(crash: Crash, script: str, says: str) -> None:
    status, log = crash.run(f"{script}; save x produce; say went on")
    assert status == 1
    assert says in log
    assert "went on" not in log


def test_save_on_a_full_stick(full_stick: Crash) -> None:
    status, log = full_stick.run("produce() { yes | head -c 1000000; }; save x produce")
    assert status == 1
    assert "x is not complete: " in log
    assert "writing x.000: dd: " in log
    assert "No space left" in log


def test_save_without_encryption(crash: Crash) -> None:
    assert crash.run("produce() { echo data; echo noise >&2; }; save x produce") == (0, "")
    assert (crash.dump / "x.000").read_text() == "data\n"


@pytest.mark.parametrize("clock", ["", "--faked-system-time=20000101T000000"])
def test_encrypt(crash: Crash, keys: Keyring, clock: str) -> None:
    """Also where the clock is behind the key's."""
    key = crash.top / "key"
    key.write_bytes(keys.public("good@example.org"))
    # The one path that is not a variable: the key stands in the image's /etc.
    wrapper = f"""
    gpg() {{
        for word; do
            shift; [ "$word" != /etc/tinykdump.key ] || word={key}; set -- "$@" "$word"
        done
        busybox env -i PATH="$PATH" gpg {clock} "$@"
    }}
    ENCRYPT=yes; produce() {{ echo secret; }}; save x produce
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
    # busybox's insmod puts its arguments together again; what the shell must not do is read them.
    insmod = f'insmod() {{ say "$# $*"; [ "$1" = {first} ]; }};'
    status, log = crash.run(f"{insmod} MODULES={order}; load_modules")
    assert status == 0
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
        ("vfat ext4", 0, "not mounted as vfat: bad superblock"),
        ("vfat", 1, "failed: /dev/sdx has none of the file systems that this image knows: vfat"),
    ],
)
def test_mount_stick(crash: Crash, types: str, status: int, says: str) -> None:
    found, log = crash.run(f"{MOUNT} FILESYSTEMS='{types}'; mount_stick")
    assert found == status
    assert says in log
    assert "mount -t vfat -o nosuid,nodev,noexec,noatime,codepage=437,iocharset=ascii" in log


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
    assert status == 0
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


def test_a_stick_that_can_not_be_written(read_only_stick: Crash) -> None:
    status, log = read_only_stick.run(OPEN)
    assert status == 1
    assert "failed: the stick can not be written" in log


def test_publish(crash: Crash) -> None:
    status, log = crash.run(f"{OPEN}; publish; say $OUTCOME")
    assert status == 0
    assert f"saved as tinykdump/{MACHINE}/{TIME}\n" in log
    assert log.endswith("tinykdump: saved\n")
    assert [path.name for path in crash.dumps.iterdir()] == [TIME]


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
def test_old_dumps_go_down_to_keep(crash: Crash, keep: int, new: str, left: list[str]) -> None:
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
    """As /proc/vmcore begins: header, a program header of the notes, the notes, then memory."""
    headers = bytes(64) + struct.pack("<IIQQQQQQ", 4, 0, 4096, 0, 0, len(notes), len(notes), 0)
    return headers.ljust(4096, b"\0") + notes.ljust(-len(notes) % 4096 + len(notes), b"\0")


@pytest.mark.parametrize(
    ("core", "taught"),
    [
        (vmcore(NOTE + NEW + b"8\n"), True),
        (vmcore(bytes(70_000) + NOTE + b"SIZE(page)=64\n" + NEW + b"8\n"), True),
        (vmcore(NOTE + OLD + b"8\n"), False),
        (vmcore(NOTE + OLD + b"8\n") + b"\n" + NEW + b"8\n", False),  # in memory, whosever it is
    ],
)
def test_makedumpfile_looks_for_what_the_crashed_kernel_has(
    crash: Crash, core: bytes, taught: bool
) -> None:
    names = {name: crash.top / name for name in ("VMCORE", "MAKEDUMPFILE", "RENAMED")}
    names["VMCORE"].write_bytes(core)
    names["MAKEDUMPFILE"].write_bytes(PROGRAM)
    names["RENAMED"].write_text("".join(f"{offset}\n" for offset in renamed(PROGRAM)))
    settings = " ".join(f"{name}={path}" for name, path in names.items())
    status, log = crash.run(f"{settings}; teach_makedumpfile")
    assert status == 0
    assert ("is made to look for" in log) == taught
    expected = PROGRAM.replace(OLD + b"\0", NEW + b"\0") if taught else PROGRAM
    assert names["MAKEDUMPFILE"].read_bytes() == expected


def test_a_makedumpfile_that_knows_it_is_left_alone(crash: Crash) -> None:
    """Nothing is looked at."""
    assert crash.run("RENAMED=/dev/null VMCORE=/none; teach_makedumpfile") == (0, "")


# --- the script, and the end ------------------------------------------------------------

# busybox is not to install its links here.
NO_INSTALL = "busybox() { :; }; run_script; say went on"


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
    status, log = crash.run(f"SCRIPT={script}; {NO_INSTALL}")
    assert status == 0
    assert says.format(stick=crash.stick) in log
    assert log.endswith("went on\n")


@pytest.mark.parametrize("action", ["reboot", "poweroff", "halt"])
@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("die nothing works", "failed"),
        ("exit 0", "failed"),
        ("OUTCOME=saved", "saved"),
        ("set -u; : $unset", "failed"),
        ("produce() { :; }; save x produce", "failed"),
    ],
)
def test_every_path_ends_in_the_final_action(
    crash: Crash, action: str, script: str, outcome: str
) -> None:
    _, log = crash.run(f"trap finish EXIT; FINAL_ACTION={action}; {script}")
    assert f"dump {outcome}; final action: {action}\n" in log
    assert log.endswith(f"ACTION {action} -f\n")
    assert f"UMOUNT {crash.stick}\n" in log


@pytest.mark.parametrize(("outcome", "there"), [("failed", True), ("saved", False)])
def test_the_crash_kernels_log_goes_along_with_a_failure(
    crash: Crash, outcome: str, there: bool
) -> None:
    crash.run(f"trap finish EXIT; dmesg() {{ echo log; }}; OUTCOME={outcome}; exit")
    assert (crash.dump / "crash-kernel.txt.000").exists() is there
