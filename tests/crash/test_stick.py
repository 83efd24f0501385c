# SPDX-License-Identifier: GPL-2.0-or-later
"""The stages up to a mounted stick, and the space on it."""

import time

import pytest

from tests.crash.world import MACHINE, MIB, OPEN, TIME, Crash, old_dump, save_dump
from tinykdump.dump import is_complete, is_dump, of_machine
from tinykdump.parts import look

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


def plug(crash: Crash, name: str, controller: str = "usb1") -> None:
    device = crash.top / f"sys/devices/{controller}/1-1/block/{name}"
    device.mkdir(parents=True)
    (device / "uevent").write_text(f"DEVNAME={name}\n")
    block = crash.top / "sys/class/block" / name
    block.parent.mkdir(parents=True, exist_ok=True)
    block.symlink_to(device)
    (crash.top / "dev" / name).touch()


def test_an_internal_disk_that_comes_while_it_looks(crash: Crash) -> None:
    """Its driver can be built in and finds it late. It is no stick, whatever its label."""
    plug(crash, "sdx", "ata1")
    find = f"findfs() {{ touch {crash.top}/dev/sdx; echo {crash.top}/dev/sdx; }}"
    status, log = crash.run(f"{find}; wait_for_stick")
    assert (status, "found the stick" in log) == (1, False)
    assert "failed: no stick LABEL=TINYKDUMP within 1 s" in log


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
    plug(crash, "sdx")
    status, log = crash.run(f"{script}; warn_of_others() {{ :; }}; wait_for_stick")
    assert says in log
    assert status == (0 if "found" in says else 1)


def test_two_sticks_with_the_same_name(crash: Crash) -> None:
    plug(crash, "sdx")
    plug(crash, "sdy")
    find = 'findfs() { for node in "$DEV"/sd*; do echo "$node"; return; done; }'
    status, log = crash.run(f"{find}; hide_other_disks() {{ :; }}; wait_for_stick")
    dev = crash.top / "dev"
    assert status == 0
    assert f"{dev}/sdy is LABEL=TINYKDUMP, too; the dump goes to {dev}/sdx\n" in log
    assert sorted(path.name for path in dev.iterdir()) == ["sdx", "sdy"]


def test_it_waits_for_the_stick_as_long_as_it_is_told(crash: Crash) -> None:
    start = time.monotonic()
    crash.run("findfs() { return 1; }; wait_for_stick")
    assert time.monotonic() - start > 0.7  # it looks five times in that second


def test_a_slow_look_counts_as_waiting(crash: Crash) -> None:
    """As beside a disk that answers slowly."""
    find = "findfs() { say look; usleep 600000; false; }"
    _, log = crash.run(f"{find}; wait_for_stick")
    assert log.count("look\n") <= 2
    assert "no stick LABEL=TINYKDUMP within 1 s\n" in log


def test_devices_that_did_not_answer_are_looked_at_again(crash: Crash) -> None:
    """After a second, and only those that have no disk yet."""
    hosts = crash.top / "sys/class/scsi_host"
    for name in ("host0", "host1/device/target1:0:0"):
        (hosts / name).mkdir(parents=True)
    for name in ("host0", "host1"):
        (hosts / name / "scan").write_text("")
    plug(crash, "sdx")
    find = f"findfs() {{ [ -s {hosts}/host0/scan ] && echo /dev/sdx; }}"
    status, log = crash.run(f"WAIT=3; {find}; warn_of_others() {{ :; }}; wait_for_stick")
    assert (status, log.splitlines()[-1][-8:]) == (0, "/dev/sdx")
    assert (hosts / "host0/scan").read_text() == "- - -\n"
    assert (hosts / "host1/scan").read_text() == ""


def test_controllers_are_reset_when_no_stick_comes(crash: Crash) -> None:
    driver = crash.top / "sys/bus/pci/drivers/xhci_hcd"
    (driver / "0000:00:03.0").mkdir(parents=True)
    ahci = crash.top / "sys/bus/pci/drivers/ahci"
    (ahci / "0000:00:1f.2").mkdir(parents=True)
    crash.run("findfs() { return 1; }; wait_for_stick")
    assert (driver / "unbind").read_text() == (driver / "bind").read_text() == "0000:00:03.0\n"
    assert [path.name for path in ahci.iterdir()] == ["0000:00:1f.2"]


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
    (crash.top / "sys/class/block/sdx").mkdir(parents=True)
    found, log = crash.run(f"{MOUNT} FILESYSTEMS='{types}'; mount_stick")
    assert found == status
    assert says in log
    options = "nosuid,nodev,noexec,noatime,dirsync,codepage=437,iocharset=ascii"
    assert f"mount -t vfat -o {options}" in log


def test_mount_exfat(crash: Crash) -> None:
    """With a character set that is a part of the driver, whatever the kernel's default is."""
    _, log = crash.run(f"{MOUNT} FILESYSTEMS=exfat; mount_stick; say parts: ${{PART_CHUNKS:-all}}")
    assert "mount -t exfat -o nosuid,nodev,noexec,noatime,dirsync,iocharset=utf8" in log


# --- room -------------------------------------------------------------------------------


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


def test_a_removal_that_is_cut_off_leaves_an_incomplete_dump(small_stick: Crash) -> None:
    """Which makes room at the next crash, and is not taken for a complete one."""
    first = old_dump(small_stick, "20240101T000000Z", 2 * MIB)
    small_stick.run(f'rm() {{ command rm "$2/SHA256SUMS"; }}; remove_dump {first.name}')
    assert [path.name for path in small_stick.dumps.iterdir()] == [f"{first.name}.partial"]
    second = old_dump(small_stick, "20250101T000000Z", 2 * MIB)
    status, log = save_dump(small_stick, 3 * MIB)
    assert status == 0, log
    assert second.exists()


def test_the_image_has_what_the_removal_of_dumps_calls(small_stick: Crash) -> None:
    for day in range(1, 5):
        old_dump(small_stick, f"2024010{day}T000000Z", 2 * MIB - MIB // 4)
    script = "free_name x; make_room 4096; old_dumps >&9; KEEP=1; remove_old_dumps"
    _, log = small_stick.run(f"DUMP= KEEP=9 FINAL_NAME=x; {script}", bare=True)
    assert log.replace("<5>tinykdump: ", "").splitlines() == [
        "x",
        "no space: removing the old dump 20240101T000000Z",
        "no space: removing the old dump 20240102T000000Z",
        "20240103T000000Z",
        "20240104T000000Z",
        "removing the old dump 20240103T000000Z",
        "removing the old dump 20240104T000000Z",
    ]


def test_dumps_of_one_time_are_in_the_order_of_their_numbers(crash: Crash) -> None:
    """Without a clock, all dumps have one time."""
    names = [TIME, *(f"{TIME}-{number}" for number in range(1, 12)), "20260202T000000Z"]
    for name in names:
        old_dump(crash, name, 0)
    _, log = crash.run("old_dumps >&9")
    assert log.split() == names


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
