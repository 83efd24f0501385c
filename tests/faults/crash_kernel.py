# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows about the crash kernel: what it lacks, and what goes wrong in it."""

import calendar
import random
import struct
import time
from dataclasses import dataclass
from functools import partial

from tests.faults.bench import MIB, SECONDS, Bench
from tests.faults.scenario import Scenario, Shape
from tests.faults.sticks import limit
from tests.vm import service
from tests.vmtest import snapshot, stick

SECTOR = 512


# --- memory -------------------------------------------------------------------------------


def too_small(missing_mib: int, bench: Bench) -> str:
    """Load the image into a reservation that is smaller than what it needs."""
    vm, manifest = bench.vm, service.manifest(bench.vm, bench.kver)
    image = f"/var/lib/tinykdump/images/{bench.kver}/initramfs-{manifest['sha256'][:16]}.img"
    before = service.reserved(vm)
    vm.run(["tinykdump", "unload"])
    size = before - missing_mib * MIB
    vm.shell(f"f=/sys/kernel/kexec/crash_size; [ -e $f ] || f=/sys/kernel/kexec_crash_size;"
             f"echo {size} >$f")  # fmt: skip
    vm.run(["kexec", "-p", "-s", manifest["kernel"], f"--initrd={image}",
            f"--append={manifest['cmdline']}"])  # fmt: skip
    assert service.reserved(vm) == size
    bench.crash()
    share = f"{size // MIB} of {before // MIB} MiB"
    found = bench.dumps()
    if found and found[-1].complete:
        return f"{share}: {bench.saved()}"
    if found and (found[-1].directory / "SHA256SUMS").read_text().count("dmesg.txt"):
        return f"{share}: {bench.log_only()}"
    died = "Kernel panic" in bench.vm.console.split("is up, image of")[-1]
    return f"{share}: nothing is on the stick; {'the kernel panicked and ' if died else ''}rebooted"


# --- programs -----------------------------------------------------------------------------


def gpg_fails(bench: Bench) -> str:
    """With a program that reads all of its input, and fails at the end."""
    bench.script("rm /bin/gpg; printf '#!/bin/sh\\ncat >/dev/null; exit 2' >/bin/gpg;"
                 "chmod +x /bin/gpg")  # fmt: skip
    bench.crash()
    assert not any(dump.complete for dump in bench.dumps()), "a dump counts as complete"
    plain_free(bench)
    words = bench.last_words()
    assert "gpg" in words, words
    return f"nothing plain on the stick; {words}"


def plain_free(bench: Bench) -> None:
    """Neither the crashed kernel's log nor its memory is on the stick in plain text."""
    raw = bench.image.path.read_bytes()
    for secret in (bench.mark, "Kernel panic", "OSRELEASE="):
        assert secret.encode() not in raw, f"{secret} is on the stick in plain text"


def script_eats_memory(bench: Bench) -> str:
    """In the memory of the process: it is the one that the kernel kills."""
    bench.script("x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done")
    bench.crash()
    bench.says("the script ended with status")
    return bench.saved()


def script_fills_files(bench: Bench) -> str:
    """In files: the kernel cannot get it back by killing the script."""
    bench.script("cat /dev/zero >/fill")
    bench.crash()
    return bench.log_only()


def makedumpfile_fails(bench: Bench) -> str:
    """It fails at the usual level only, as on lists of pages that are damaged."""
    bench.script("mv /bin/makedumpfile /bin/real; printf '#!/bin/sh\\ncase \"$*\" in *\"-d 31\"*) "
                 "exit 1;; esac; exec /bin/real \"$@\"' >/bin/makedumpfile;"
                 "chmod +x /bin/makedumpfile")  # fmt: skip
    bench.crash()
    bench.says("could not save the memory at level 31: ")
    return bench.saved()


def script_hangs(bench: Bench) -> str:
    bench.script("sleep 1000", "script_wait = 5\n")
    bench.crash()
    bench.says("the script ended with status ")
    return bench.saved()


def script_fails(bench: Bench) -> str:
    bench.script("exit 3")
    bench.crash()
    bench.says("the script ended with status 3; going on")
    return bench.saved()


def write_hangs(bench: Bench) -> str:
    """The stick stops in the middle and never goes on; a kernel that resets it would block QEMU."""
    patience = "for timeout in /sys/block/sd*/device/timeout; do echo 3600 >$timeout; done"
    bench.script(patience, "stall = 20\n")
    bench.start()
    bench.vm.wait_for_console("saving the memory", SECONDS)
    limit(bench, 1)
    bench.wait()
    bench.says("failed: no progress for ")
    bench.says("dump failed; final action: reboot")
    return f"the final action; {bench.last_words()}"


# --- watchdog -----------------------------------------------------------------------------

WATCHED = Shape(arguments=("-device", "i6300esb", "-action", "watchdog=reset"))
# It bites 30 s after it was fed last.
START_WATCHDOG = (
    "modprobe i6300esb heartbeat=30; (while echo && sleep 5; do :; done >/dev/watchdog0) &"
    "until grep -qx active /sys/class/watchdog/watchdog0/state; do sleep 0.2; done"
)
LONG_SCRIPT = ("sleep 45", "script_wait = 60\n")


def watchdog_runs(bench: Bench) -> str:
    bench.vm.start(["/bin/sh", "-c", f"{START_WATCHDOG}; wait"])
    bench.vm.shell("until [ -e /dev/watchdog0 ]; do sleep 0.2; done; sleep 1")
    bench.script(*LONG_SCRIPT)
    assert "i6300esb" in service.manifest(bench.vm, bench.kver)["modules"]
    bench.crash()
    return bench.saved()


def watchdog_later(bench: Bench) -> str:
    """The image has no driver for it: it bites while the script runs."""
    bench.script(*LONG_SCRIPT)
    bench.vm.start(["/bin/sh", "-c", f"{START_WATCHDOG}; wait"])
    bench.vm.shell("until [ -e /dev/watchdog0 ]; do sleep 0.2; done; sleep 1")
    bench.crash()
    return f"the watchdog resets the machine; {bench.log_only()}"


def panic_inside(bench: Bench) -> str:
    bench.script("echo c >/proc/sysrq-trigger")
    bench.crash()
    return f"the kernel reboots by itself; {bench.log_only()}"


# --- time ---------------------------------------------------------------------------------

SET_CLOCK = """
import fcntl, struct, time
t = time.gmtime({seconds})
fcntl.ioctl(open("/dev/rtc0"), 0x4024700a, struct.pack("9i", t.tm_sec, t.tm_min, t.tm_hour,
            t.tm_mday, t.tm_mon - 1, t.tm_year - 1900, 0, 0, 0))
"""


def clock(seconds: int, year: str, bench: Bench) -> str:
    """Set the hardware clock, which the crash kernel reads (RTC_SET_TIME, rtc(4)).

    The kernel of kernel/ has no driver for it.
    """
    bench.vm.run(["python3", "-c", SET_CLOCK.format(seconds=seconds)])
    bench.crash()
    gets = bench.saved()
    name = bench.dumps()[-1].directory.name
    assert name.startswith(year), f"the dump is {name}"
    return f"{gets}, as {name}"


def clock_local(bench: Bench) -> str:
    """The hardware clock has the time of a zone two hours east, as on a PC with Windows."""
    vm, now = bench.vm, int(time.time())
    vm.put(b"TZif2\nEAST-2\n", "/etc/localtime")
    vm.put(b"0.0 0 0.0\n0\nLOCAL\n", "/etc/adjtime")
    vm.run(["tinykdump", "-l"])
    vm.run(["python3", "-c", SET_CLOCK.format(seconds=now + 7200)])
    bench.crash()
    gets = bench.saved()
    name = bench.dumps()[-1].directory.name
    begun = time.strptime(name, "%Y%m%dT%H%M%SZ")
    assert now - 60 < calendar.timegm(begun) < now + 3600, f"the dump is {name}, not of {now}"
    return f"{gets}, as {name}"


# --- power --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Write:
    """A write of the guest to the stick, in the order in which they came."""

    offset: int  # in bytes
    data: bytes


Flush = None


def read_writes(log: bytes) -> list[Write | None]:
    """What QEMU's blklogwrites recorded; None is a flush.

    The format is that of dm-log-writes (drivers/md/dm-log-writes.c): a super block with magic,
    version, number of entries and sector size; each entry has sector, number of sectors, flags and
    length, is padded to a sector, and is followed by its data. Flags: 1 flush, 2 FUA, 4 discard.
    """
    _, _, count, size = struct.unpack_from("<QQQI", log)
    found: list[Write | None] = []
    at = size
    for _ in range(count):
        sector, sectors, flags, _ = struct.unpack_from("<QQQQ", log, at)
        at += size
        if flags & 1:
            found.append(Flush)
        if sectors and not flags & 4:
            found.append(Write(sector * size, log[at : at + sectors * size]))
            at += sectors * size
        if flags & 2:
            found.append(Flush)
    return found


def cut(writes: list[Write | None], at: int, share: float, chance: random.Random) -> list[Write]:
    """The writes on the medium after a power cut before entry `at`.

    A stick that caches may lose any write that no flush followed; a share of them is kept.
    """
    flushed = max((index for index in range(at) if writes[index] is Flush), default=0)
    kept = (
        each for index, each in enumerate(writes[:at])
        if index < flushed or chance.random() < share
    )  # fmt: skip
    return [each for each in kept if each]


ORDER = ("nothing", "log", "whole")


def power_cuts(bench: Bench) -> str:
    """Record every write of one dump, and replay them up to ten random points."""
    blank = bench.new_stick("blank")
    image = stick.Image(bench.workdir / "other.img", "vfat")
    snapshot.copy(blank.path, image.path)
    log = bench.workdir / "writes"
    log.touch()
    bench.swap(image, filter={"driver": "blklogwrites", "log-super-update-interval": 1,
                              "log": {"driver": "file", "filename": str(log)}})  # fmt: skip
    bench.crash()
    gets = bench.saved()
    writes = read_writes(log.read_bytes())
    bench.torn = True
    assert Flush in writes, "the crash kernel has flushed nothing"
    chance = random.Random(bench.mark)  # noqa: S311 - no secret
    ends = []
    for point in sorted(chance.sample(range(len(writes)), 10)):
        # What was flushed stays, whatever becomes of the rest.
        least = after_cut(bench, blank, cut(writes, point, 0, chance))
        ends.append(after_cut(bench, blank, cut(writes, point, 0.5, chance)))
        assert ORDER.index(ends[-1]) >= ORDER.index(least), f"{least} became {ends[-1]}"
    counts = ", ".join(f"{ends.count(name)} {name}" for name in ORDER)
    return f"{gets}; after ten cuts among {len(writes)} writes: {counts}"


def after_cut(bench: Bench, blank: stick.Image, writes: list[Write]) -> str:
    """Check what is on the stick after a cut; says what that is."""
    torn = stick.Image(bench.workdir / "torn.img", "vfat")
    snapshot.copy(blank.path, torn.path)
    with torn.path.open("r+b") as file:
        for write in writes:
            file.seek(write.offset)
            file.write(write.data)
    found = bench.dumps(torn)
    if not found:
        return "nothing"
    dump = found[-1]
    if dump.complete:
        bench.whole(dump)
        return "whole"
    sums = dump.directory / "SHA256SUMS"
    if not sums.exists() or "dmesg.txt" not in sums.read_text(errors="replace"):
        return "nothing"
    target, status, _ = bench.restore(dump)
    assert status == 1, f"restore of a partial dump ends with {status}"
    assert not (target / "vmcore").exists(), "restore takes a torn dump for a whole one"
    assert bench.mark in (target / "vmcore-dmesg.txt").read_text(errors="replace")
    return "log"


ROWS = (
    *(
        Scenario("crash-kernel", f"memory-{missing}", f"the reservation is {missing} MiB too small",
                 "a dump, or the log, or nothing but the final action", partial(too_small, missing))
        for missing in (8, 16, 24)
    ),
    Scenario("crash-kernel", "gpg-fails", "gpg reads everything and fails",
             "nothing plain is written, and the crash log says so", gpg_fails),
    Scenario("crash-kernel", "makedumpfile-fails", "makedumpfile fails at the usual level",
             "a complete dump of another level", makedumpfile_fails),
    Scenario("crash-kernel", "script-hangs", "the script does not end", "it is killed after "
             "script_wait; a complete dump", script_hangs),
    Scenario("crash-kernel", "script-fails", "the script fails", "its status in the crash log; a "
             "complete dump", script_fails),
    Scenario("crash-kernel", "write-hangs", "a write to the stick never ends",
             "the final action, and the reason in the crash log", write_hangs),
    Scenario("crash-kernel", "watchdog", "a watchdog runs, and the dump takes longer than its time",
             "it is fed; a complete dump", watchdog_runs, shape=WATCHED),
    Scenario("crash-kernel", "watchdog-later", "a watchdog was started after arming, without "
             "another `tinykdump -l`", "a reset, and the log", watchdog_later, shape=WATCHED),
    Scenario("crash-kernel", "script-eats-memory", "the script allocates all memory",
             "the script is killed; a complete dump", script_eats_memory),
    Scenario("crash-kernel", "script-fills-files", "the script fills the memory with files",
             "the final action, and the log", script_fills_files),
    Scenario("crash-kernel", "panic-inside", "the crash kernel panics after it saved the log",
             "a reboot, and the log", panic_inside),
    Scenario("crash-kernel", "clock-1970", "the hardware clock is at 1 January 1970",
             "a complete dump", partial(clock, 60, "1970"), kernel="stock"),
    Scenario("crash-kernel", "clock-2090", "the hardware clock is at 2090", "a complete dump",
             partial(clock, 3786912000, "2090"), kernel="stock"),
    Scenario("crash-kernel", "clock-local", "the hardware clock has local time", "a complete dump, "
             "named by the time in UTC", clock_local, kernel="stock"),
    Scenario("crash-kernel", "power-cuts", "the power is cut at ten random writes, and the stick "
             "loses half of what it was not told to flush", "each time a whole dump, or one that "
             "counts as partial with a readable log", power_cuts),
)  # fmt: skip
