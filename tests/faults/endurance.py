# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine that crashes again and again, with a small stick: `make endurance CYCLES=100`."""

import shutil
import time

from tests.faults.bench import MIB, SECONDS, Bench
from tests.faults.scenario import Scenario, Shape
from tests.vm import service

KEEP = 3
# It has space for a few dumps only.
STICK_MIB = 64


def state_kib(bench: Bench) -> int:
    """What tinykdump keeps on the machine, without its own key, of which there is none here."""
    return int(bench.vm.shell("du -sk /var/lib/tinykdump | cut -f1").text)


def records(bench: Bench) -> int:
    """Nobody collects them in this guest: the kernel has to make room.

    QEMU's ERST is out of order from the start of a snapshot until the next reset, so the first
    crash leaves none.
    """
    return len(bench.vm.run(["ls", "/sys/fs/pstore"]).text.split())


def endure(bench: Bench) -> str:
    """Each time, boot, arm as the service does, and look at everything that could grow."""
    vm, started = bench.vm, time.monotonic()
    bench.swap(bench.new_stick("small", size_mib=STICK_MIB))
    # Without it, a machine has another name after each reboot.
    vm.put(b"0123456789abcdef0123456789abcdef\n", "/etc/machine-id")
    service.reconfigure(vm, f"[dump]\nkeep = {KEEP}\n")
    vm.run(["sync"])
    first, sizes, kept, most = state_kib(bench), list[int](), list[int](), 0
    for number in range(1, bench.cycles + 1):
        bench.mark = service.mark()
        bench.start()
        vm.wait_for_reboot(SECONDS)
        found = bench.dumps()
        assert found and all(each.complete for each in found), f"crash {number}: {found}"
        assert len(found) == min(number, KEEP), f"crash {number}: {len(found)} dumps"
        bench.whole(found[-1])
        most = max(most, len(found))
        sizes.append(found[-1].size // MIB)
        for copy in (*bench.workdir.glob("files-*"), *bench.workdir.glob("restored-*")):
            shutil.rmtree(copy)
        vm.run(["tinykdump", "-l"])
        kept.append(records(bench))
        assert state_kib(bench) == first, f"crash {number}: state of {state_kib(bench)} KiB"
        print(f"crash {number}: {sizes[-1]} MiB, {kept[-1]} records", flush=True)
    each = (time.monotonic() - started) / bench.cycles
    return (f"{bench.cycles} complete dumps of at most {max(sizes)} MiB, each restored, on "
            f"a stick of {STICK_MIB} MiB; never more than {most} on it (keep = {KEEP}), "
            f"{max(kept)} records in pstore, and {first} KiB of state; {each:.0f} s each"
            )  # fmt: skip


ROWS = (
    Scenario("endurance", "crashes", "crashes one after the other, with keep and a small stick",
             "each dump complete; no growth of stick, state and pstore", endure,
             shape=Shape(lifetime=100_000), by_name=True),
)  # fmt: skip
