# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine that crashes again and again, with a small stick: `make endurance CYCLES=100`.

SIGUSR1 ends it after the crash that runs, with what was seen until then.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """Yields whether SIGUSR1 came during the block."""
    came: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGUSR1, before)


def endure(bench: Bench) -> str:
    """Each time, boot, arm as the service does, and look at everything that could grow."""
    vm, started = bench.vm, time.monotonic()
    bench.swap(bench.new_stick("small", size_mib=STICK_MIB))
    # Without it, a machine has another name after each reboot.
    vm.put(b"0123456789abcdef0123456789abcdef\n", "/etc/machine-id")
    service.reconfigure(vm, f"[dump]\nkeep = {KEEP}\n")
    vm.run(["sync"])
    first, sizes, counts, kept = state_kib(bench), list[int](), list[int](), list[int]()
    with asked_to_end() as must_end:
        while len(sizes) < bench.cycles and not must_end():
            number = len(sizes) + 1
            found = crash(bench)
            assert all(each.complete for each in found), f"crash {number}: {found}"
            assert len(found) == min(number, KEEP), f"crash {number}: {len(found)} dumps"
            bench.whole(found[-1])
            counts.append(len(found))
            sizes.append(found[-1].size // MIB)
            for copy in (*bench.workdir.glob("files-*"), *bench.workdir.glob("restored-*")):
                shutil.rmtree(copy)
            vm.run(["tinykdump", "-l"])
            kept.append(records(bench))
            assert state_kib(bench) == first, f"crash {number}: state of {state_kib(bench)} KiB"
            print(f"crash {number}: {sizes[-1]} MiB, {kept[-1]} records", flush=True)
    each = (time.monotonic() - started) / len(sizes)
    return (f"{len(sizes)} complete dumps of at most {max(sizes)} MiB, each restored, on "
            f"a stick of {STICK_MIB} MiB; never more than {max(counts)} on it (keep = {KEEP}), "
            f"{max(kept)} records in pstore, and {first} KiB of state; {each:.0f} s each"
            )  # fmt: skip


def crash(bench: Bench) -> tuple[service.Dump, ...]:
    """Crash, and wait for the reboot; the dumps that are on the stick then."""
    bench.mark = service.mark()
    bench.start()
    bench.vm.wait_for_reboot(SECONDS)
    return bench.dumps()


ROWS = (
    Scenario("endurance", "crashes", "crashes one after the other, with keep and a small stick",
             "each dump complete; no growth of stick, state and pstore", endure,
             shape=Shape(lifetime=100_000), by_name=True),
)  # fmt: skip
