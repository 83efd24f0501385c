# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows about the stick: where it is, what is on it, and how it fails."""

import secrets
from functools import partial
from pathlib import Path
from typing import Any

from tests import plugged
from tests.faults.bench import MIB, SECONDS, Bench
from tests.faults.scenario import Scenario, Shape
from tests.vm import service
from tests.vmtest import stick
from tests.vmtest.machine import EHCI, XHCI, Device, Stick

SECTOR = 512
# The memory is written there: the file systems here write from their start on.
MIDDLE = 6 * MIB
# A name, and the content of a file that somebody else keeps on the stick.
Foreign = dict[str, bytes]


def failing(*offsets: int) -> dict[str, Any]:
    """A filter: each write to these bytes of the stick fails (QEMU's blkdebug)."""
    rules = [
        {"event": "none", "iotype": "write", "sector": offset // SECTOR, "errno": 5}
        for offset in offsets
    ]
    return {"driver": "blkdebug", "inject-error": rules}


def failing_sector(bench: Bench) -> str:
    bench.swap(bench.new_stick(), filter=failing(MIDDLE))
    bench.crash()
    return bench.log_only()


def failing_in_the_middle(bench: Bench) -> str:
    bench.swap(bench.new_stick(), filter=failing(*range(MIDDLE, MIDDLE + 64 * MIB, 1 << 16)))
    bench.crash()
    return bench.log_only()


def read_only(bench: Bench) -> str:
    bench.swap(bench.new_stick(), readonly=True)
    bench.crash()
    assert not bench.dumps(), "there is a dump on a stick that cannot be written"
    words = bench.last_words()
    assert "cannot write to the stick" in words or "cannot mount" in words, words
    return f"the final action; {words}"


def fill(image: stick.Image, free_mib: int) -> Foreign:
    """Put other people's files on a stick, until so much is free; returns them."""
    files = {f"photo {number:02} 'x'.jpg": secrets.token_bytes(10_000 + number)
             for number in range(40)}  # fmt: skip
    size = image.path.stat().st_size // MIB - free_mib - 4
    files["film.mkv"] = secrets.token_bytes(MIB) * size
    for name, content in files.items():
        stick.write(image, name, content)
    return files


def same(image: stick.Image, files: Foreign, directory: Path) -> None:
    """The files are there, byte for byte the same."""
    stick.extract(image, directory)
    for name, content in files.items():
        assert (directory / name).read_bytes() == content, f"{name} has changed"


def nearly_full(bench: Bench) -> str:
    image = bench.new_stick(size_mib=128)
    files = fill(image, free_mib=6)
    bench.swap(image)
    bench.crash()
    gets = bench.log_only()
    same(image, files, bench.workdir / "foreign")
    assert "the stick is full" in gets, gets
    return f"{gets}; {len(files)} files of others are the same"


def foreign_files(bench: Bench) -> str:
    image = bench.new_stick()
    files = fill(image, free_mib=300)
    bench.swap(image)
    bench.crash()
    gets = bench.saved()
    same(image, files, bench.workdir / "foreign")
    return f"{gets}; {len(files)} files of others are the same"


def dirty_journal(bench: Bench) -> str:
    """The system has the stick mounted, and has not written its files back, when it crashes."""
    bench.swap(bench.new_stick(filesystem="ext4"))
    bench.vm.shell(
        "modprobe -a xhci_pci usb_storage sd_mod ext4;"
        "until [ -e /sys/class/block/sda ]; do sleep 0.2; done; mount /dev/sda /mnt;"
        "for i in $(seq 200); do echo $i >/mnt/file-$i; done; sync -d /mnt/file-200"
    )
    service.reconfigure(bench.vm, "[dump]\nfilesystems = vfat, ext4\n")
    bench.crash()
    return bench.saved()


def damaged_fat(bench: Bench) -> str:
    """The first half of both tables is noise: chains that cross, and clusters that nobody has.

    The numbers are of clusters that exist, or mtools would not read the stick.
    """
    image = bench.new_stick()
    geometry = image.path.read_bytes()[:SECTOR]
    reserved = int.from_bytes(geometry[14:16], "little") * SECTOR
    size = int.from_bytes(geometry[36:40], "little") * SECTOR
    with image.path.open("r+b") as file:
        for start in (reserved, reserved + size):
            file.seek(start + 4096)  # the root directory stays
            numbers = (2 + secrets.randbelow(60_000) for _ in range(size // 8))
            file.write(b"".join(number.to_bytes(4, "little") for number in numbers))
    bench.swap(image)
    bench.crash()
    bench.torn = True
    if "saved as " in bench.vm.console:
        return bench.saved()
    words = bench.last_words()
    assert words != "no reason was logged"
    return f"the final action; {words}"


def hub(bench: Bench) -> str:
    """One run shows three things: two sticks with the label and odd sectors at a hub."""
    sizes: Device = {"logical_block_size": 4096, "physical_block_size": 4096}
    images = [bench.new_stick(f"hub-{port}", sector=4096) for port in (1, 2)]
    bench.vm.qmp("device_add", driver="usb-hub", id="hub", bus="xhci.0", port="5")
    bench.swap(images[0], port="5.1", properties=sizes)
    bench.vm.plug(Stick("second", images[1].path, port="5.2", properties=sizes))
    bench.crash()
    bench.says("is LABEL=TINYKDUMP, too; the dump goes to ")
    written = [image for image in images if bench.dumps(image)]
    assert len(written) == 1, f"{len(written)} sticks have a dump"
    bench.image = written[0]
    return f"{bench.saved()}; the crash log names both sticks"


# --- not there, or pulled out -------------------------------------------------------------

USB_2 = Shape(controllers=(XHCI, EHCI))
SLOW = 300_000  # bytes in a second


def limit(bench: Bench, rate: int) -> None:
    """From now on, the stick does no more than so many bytes in a second."""
    (disk,) = (each["qdev"] for each in bench.vm.qmp("query-block")
               if each.get("inserted", {}).get("node-name") in ("stick-image", "other-image")
               )  # fmt: skip
    others = dict.fromkeys(("bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
    bench.vm.qmp("block_set_io_throttle", id=disk, bps=rate, **others)


def not_there(bench: Bench) -> str:
    bench.vm.unplug("stick")
    bench.crash()
    words = bench.last_words()
    assert "no stick LABEL=TINYKDUMP within 60 s" in words, words
    assert not bench.dumps()
    return f"the final action; {words}"


def late(bench: Bench) -> str:
    bench.vm.unplug("stick")
    bench.start()
    bench.vm.wait_for_console("waited 40 of 60 s for the stick", SECONDS)
    bench.move("6")
    bench.wait()
    return bench.saved()


def pulled(stage: str, bench: Bench) -> str:
    """Pulled out after the crash kernel said so, and back in another port."""
    bench.start()
    bench.vm.wait_for_console(stage, SECONDS)
    bench.vm.unplug("stick")
    bench.vm.wait_for_console("the stick was pulled out", SECONDS)
    bench.move("6")
    bench.wait()
    return bench.saved()


def pulled_while_syncing(bench: Bench) -> str:
    """A slow stick: after ten seconds, data waits for it that were written."""
    bench.start()
    bench.vm.wait_for_console("saving the memory", SECONDS)
    limit(bench, SLOW // 3)
    bench.vm.wait_for_console("vmcore.flat: [0-9]+ MiB on the stick", SECONDS)
    bench.vm.unplug("stick")
    bench.vm.wait_for_console("the stick was pulled out", SECONDS)
    bench.move("6")
    bench.wait()
    return bench.saved()


def slow(bench: Bench) -> str:
    limit(bench, SLOW)
    bench.crash()
    return bench.saved()


def full(bench: Bench) -> str:
    image = bench.new_stick(size_mib=64)
    files = fill(image, free_mib=1)
    stick.write(image, "rest", bytes(plugged.free_of_fat(image.path)))
    bench.swap(image)
    bench.crash()
    same(image, files, bench.workdir / "foreign")
    words = bench.last_words()
    assert "No space left on device" in words, words
    return f"the final action; {words}; {len(files)} files of others are the same"


def usb2(bench: Bench) -> str:
    bench.swap(bench.new_stick(), bus=EHCI.id)
    bench.crash()
    bench.says("high-speed USB device number 2 using ehci-pci")
    return bench.saved()


def second_stick(bench: Bench) -> str:
    bench.swap(bench.new_stick("first"), readonly=True)
    second = bench.new_stick("second")
    bench.vm.plug(Stick("second", second.path))
    bench.crash()
    bench.says("; trying /dev/sd")
    bench.image = second
    return bench.saved()


def uas(bench: Bench) -> str:
    bench.swap(bench.new_stick(partitioned=True), driver="usb-uas")
    bench.crash()
    bench.says("scsi host0: uas")
    return bench.saved()


ROWS = (
    Scenario("stick", "not-there", "there is no stick", "the final action after 60 s, and the "
             "reason in the crash log", not_there),
    Scenario("stick", "late", "plugged in after 40 s", "a complete dump", late),
    Scenario("stick", "pulled-in-log", "pulled out while the log is saved, then plugged into "
             "another port", "a complete dump", partial(pulled, "saving the log")),
    Scenario("stick", "pulled-while-syncing", "pulled out while data waits for a slow stick, then "
             "plugged into another port", "a complete dump", pulled_while_syncing),
    Scenario("stick", "slow", f"it writes {SLOW // 1000} kB in a second", "a complete dump", slow),
    Scenario("stick", "full", "no byte is free", "the final action, and the reason in the crash "
             "log; files of others byte for byte the same", full),
    Scenario("stick", "usb-2", "at an EHCI controller", "a complete dump", usb2, shape=USB_2),
    Scenario("stick", "uas-partitioned", "with UAS, and the file system in a partition",
             "a complete dump", uas),
    Scenario("stick", "exfat", "the file system is exFAT", "a complete dump",
             reason="nothing on the host reads exFAT: tests/vm/test_capture.py restores it in the "
             "guest"),
    Scenario("stick", "failing-sector", "one sector in the middle of the dump cannot be written",
             "never \"saved\": a partial dump, its log readable", failing_sector,
             in_check=True),
    Scenario("stick", "errors-in-the-middle", "from the middle on, every write fails",
             "a partial dump, its log readable", failing_in_the_middle),
    Scenario("stick", "read-only", "the stick is write-protected",
             "the final action, and the reason in the crash log", read_only),
    Scenario("stick", "nearly-full", "the log fits on the stick, the memory does not",
             "the log; files of others byte for byte the same", nearly_full),
    Scenario("stick", "foreign-files", "41 files of others are on the stick",
             "a complete dump; the files byte for byte the same", foreign_files),
    Scenario("stick", "dirty-journal", "an ext4 stick is mounted and being written to by the "
             "system that crashes", "a complete dump", dirty_journal),
    Scenario("stick", "damaged-fat", "half of both FATs is noise",
             "a complete dump, or the final action with a reason", damaged_fat),
    Scenario("stick", "other-port", "pulled out in the middle of the memory, then plugged into "
             "another port", "a complete dump beside the partial one",
             partial(pulled, "saving the memory")),
    Scenario("stick", "hub-4kn-label", "two sticks with the label and sectors of 4096 bytes "
             "behind a hub", "a complete dump on one; the crash log names the other", hub),
    Scenario("stick", "second-stick", "two sticks with the label; the first is write-protected",
             "a complete dump on the second", second_stick),
    Scenario("stick", "fat32-4-gib", "a dump larger than 4 GiB on FAT32", "parts below 4 GiB, "
             "restored to one vmcore", reason="a guest whose used memory is above 4 GiB after "
             "compression takes hours without KVM; tests/crash writes a dump in parts"),
)  # fmt: skip
