# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows about the machine: what is plugged into it after it was armed, its size, and its locks.

Only Debian's kernel has what most of them need.
"""

from pathlib import Path

from tests.faults.bench import MIB, Bench
from tests.faults.scenario import Scenario, Shape
from tests.faults.system_kernel import SAVED, by
from tests.vm import service, vmcore

GIB = 1 << 30

# With room for more memory.
OPEN = Shape(arguments=("-m", "slots=1,maxmem=4G"))
# Linux uses one of two processors. (It ignores the empty place for another one in an emulated
# machine, as it does not know that hypervisor.)
ONE_OFF = Shape(cpus=2, append=("maxcpus=1",))
# QEMU on the host takes only what the guest has written: free memory must not be cleared.
LARGE = Shape(
    cpus=2, memory_mib=16 << 10, append=("init_on_free=0",),
    arguments=("-object", "memory-backend-ram,id=first,size=8G",
               "-object", "memory-backend-ram,id=second,size=8G",
               "-numa", "node,memdev=first,cpus=0", "-numa", "node,memdev=second,cpus=1"),
)  # fmt: skip


def restored(bench: Bench) -> Path:
    """The vmcore of the new dump, restored once more."""
    return bench.restore(bench.dumps()[-1])[0] / "vmcore"


def processor_added(bench: Bench) -> str:
    """It is the one that crashes."""
    bench.vm.shell("echo 1 >/sys/devices/system/cpu/cpu1/online")
    bench.crash(by("echo c >/proc/sysrq-trigger", cpu=1))
    return bench.saved("CPU: 1 ")


TOTAL = "grep MemTotal /proc/meminfo"


def memory_added(bench: Bench) -> str:
    vm = bench.vm
    before = vm.shell(TOTAL).text
    vm.qmp("object-add", **{"qom-type": "memory-backend-ram", "id": "more", "size": GIB})
    vm.qmp("device_add", driver="pc-dimm", id="added", memdev="more")
    # The kernel may leave it off until somebody asks.
    vm.shell(f"for _ in $(seq 300); do [ \"$({TOTAL})\" = '{before.strip()}' ] || break; sleep 0.2;"
             "for state in /sys/devices/system/memory/memory*/state; do "
             "! grep -q offline $state || echo online >$state; done; done")  # fmt: skip
    bench.crash()
    gets = bench.saved()
    end = vmcore.end_of_memory(restored(bench))
    # QEMU puts it above 4 GiB.
    assert end >= 5 * GIB, f"the memory in the dump ends at {end // MIB} MiB"
    return f"{gets}; its memory ends at {end // GIB} GiB"


def large(bench: Bench) -> str:
    nodes = bench.vm.run(["ls", "/sys/devices/system/node"]).text.split()
    assert {"node0", "node1"} <= set(nodes), nodes
    size = service.reserved(bench.vm) // MIB
    bench.crash(by("echo c >/proc/sysrq-trigger", cpu=1))
    gets = bench.saved()
    end = vmcore.end_of_memory(restored(bench))
    assert end > 16 * GIB, f"the memory in the dump ends at {end // MIB} MiB"
    return f"with {size} MiB reserved, {gets}"


# --- encryption and locks -----------------------------------------------------------------

# Maps a disk with dm-crypt, without the programs that do so usually: DM_DEV_CREATE, DM_TABLE_LOAD
# and DM_DEV_SUSPEND, which resumes (include/uapi/linux/dm-ioctl.h).
MAP = """
import fcntl, struct
def order(number, data=b"", targets=0):
    size = 312 + len(data)
    head = struct.pack("=3I2IIiIII Q128s129s7x", 4, 0, 0, size, 312, targets, 0, 0, 0, 0, 0,
                       b"root", b"")
    with open("/dev/mapper/control", "r+b", buffering=0) as control:
        fcntl.ioctl(control, 0xc138fd00 | number, bytearray(head + data))
words = b"aes-xts-plain64 {key} 0 {disk} 0\\0"
words += bytes(-len(words) % 8)
order(3)
order(9, struct.pack("=QQiI16s", 0, {sectors}, 0, 40 + len(words), b"crypt") + words, 1)
order(6)
"""


def encrypted_root(bench: Bench) -> str:
    """A mounted file system on dm-crypt; where the root is does not matter to the crash kernel."""
    vm, key = bench.vm, (bench.mark * 5)[:64].encode()
    vm.shell("modprobe -a loop dm_crypt xts; truncate -s 16M /root/disk;"
             "losetup /dev/loop0 /root/disk")  # fmt: skip
    vm.run(["python3", "-c", MAP.format(key=key.hex(), disk="/dev/loop0", sectors=16 << 11)])
    vm.shell("mke2fs -q -t ext4 /dev/dm-0; mount /dev/dm-0 /mnt; echo text >/mnt/file; sync")
    service.reconfigure(vm, "[dump]\nencrypt = yes\n")
    bench.crash()
    gets = bench.saved()
    assert key not in bench.image.path.read_bytes(), "the key is on the stick in plain text"
    assert vmcore.has(restored(bench), key, memory_mib=bench.vm.machine.memory_mib)
    return f"{gets}; the key of the disk is in the restored memory, and not on the raw stick"


def locked_down(bench: Bench) -> str:
    """As with lockdown=integrity. No certificate of Debian's kernel is known: there is no shim."""
    vm = bench.vm
    vm.run(["tinykdump", "unload"])
    vm.shell("echo integrity >/sys/kernel/security/lockdown")
    refused = vm.run(["tinykdump", "-l"], check=False)
    said = refused.stderr.decode()
    assert refused.status == 1 and len(said.splitlines()) == 1, said
    assert "signed" in said and "lockdown" in said, said
    assert vm.run(["cat", "/sys/kernel/kexec_crash_loaded"]).text.strip() == "0"
    return said.strip()


def locked_down_later(bench: Bench) -> str:
    """The crash kernel was loaded before; the kernel would not load it again."""
    vm = bench.vm
    vm.shell("echo integrity >/sys/kernel/security/lockdown")
    refused = vm.run(["tinykdump", "-l"], check=False)
    said = refused.stderr.decode()
    assert refused.status == 1 and len(said.splitlines()) == 1, said
    assert "the crash kernel that is loaded stays" in said, said
    bench.crash()
    return f"{said.strip()}; {bench.saved()}"


ROWS = (
    Scenario("system-kernel", "processor-added", "a processor that was off is turned on after "
             "arming, and panics", SAVED, processor_added, shape=ONE_OFF),
    Scenario("system-kernel", "memory-added", "1 GiB of memory is added after arming",
             "a complete dump with the new memory", memory_added, kernel="stock", shape=OPEN),
    Scenario("system-kernel", "16-gib-numa", "16 GiB on two NUMA nodes; a panic on the second",
             SAVED, large, shape=LARGE),
    Scenario("system-kernel", "encrypted-root", "a disk with dm-crypt is mounted, as with a root "
             "on LUKS", "a complete dump; the key of the disk is in it, and nowhere in plain text",
             encrypted_root, kernel="stock"),
    Scenario("system-kernel", "lockdown", "lockdown=integrity, and a kernel that no known key has "
             "signed", "not armed; one line says why, and what to do", locked_down,
             kernel="stock"),
    Scenario("system-kernel", "locked-down-later", "lockdown=integrity after arming, then "
             "`tinykdump -l`", "one line says why it is refused; still armed, a complete dump",
             locked_down_later, kernel="stock"),
)  # fmt: skip
