# SPDX-License-Identifier: GPL-2.0-or-later
"""What kernel parameters save in the crash kernel: memory, and time until its first process.

Boots the guests' kernel as the crash kernel would start, with the same image and as much memory,
but without a crash. The image's /init is replaced by one that loads the modules, shows how much
memory is free, and ends the guest. Its clock counts instructions, so a busy host changes nothing.

A parameter that tinykdump gives its crash kernel is measured by leaving it out, others by adding
them.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import bare
from tests.bench.report import Measured
from tests.vmtest import initramfs, qemu
from tests.vmtest.machine import Machine
from tests.vmtest.rootfs import Root

COMMAND = "python -m tests.bench parameters"
MEMORY_MIB = 96
BOOT_SECONDS = 3600.0

# Words -> who else has them, or what speaks against them. "Fedora" is kdump-utils.
PARAMETERS = {
    "cgroup.memory=nokmem": "",
    "no5lvl": "on processors with five levels of page tables",
    "initcall_blacklist=slab_late_init": "no /sys/kernel/slab; the name is the kernel's own affair",
    "cgroup_disable=memory": "Fedora",
    "transparent_hugepage=never": "Fedora",
    "numa=off": "Fedora",
    "nr_cpus=1": "Fedora, Debian; the guest has one processor",
    "kfence.sample_interval=0": "Fedora",
    "initcall_blacklist=tracer_init_tracefs": "",
    "initcall_blacklist=param_sysfs_builtin_init": "a user's script may want /sys/module",
    "cryptomgr.notests": "",
    "coherent_pool=4K": "drivers may use it in memory that is encrypted",
    "debugfs=off": "",
    "lsm=lockdown": "",
    "apparmor=0": "",
    "audit=0": "",
    "ipv6.disable=1": "",
    "psi=0": "",
    "mitigations=off": "",
    "init_on_alloc=0": "",
    "percpu_alloc=page": "",
    "trace_buf_size=1": "",
    "slab_max_order=0 slub_max_order=0": "",
    "dhash_entries=1 ihash_entries=1 mhash_entries=1 mphash_entries=1": "",
    "thash_entries=1 uhash_entries=1": "",
}

INIT = """#!/bin/sh
. /etc/tinykdump.conf
. /lib/tinykdump.sh
set_paths
mount_kernel_interfaces
load_modules
sleep 1 # so that the drivers have what they ask for
echo 3 >/proc/sys/vm/drop_caches
cat /proc/meminfo /proc/zoneinfo >/dev/console
poweroff -f
"""

_FREE = re.compile(r"^MemFree: +(\d+) kB", re.MULTILINE)
# Free pages in the lists of the processor, which MemFree leaves out: up to 2 MiB.
_LISTED = re.compile(r"^ +count: +(\d+)\r?$", re.MULTILINE)
_PAGE_KIB = 4
_STARTED = re.compile(r"\[ *([0-9.]+)\] Run /init as init process")


@dataclass(frozen=True)
class Boot:
    """What a boot showed."""

    free: int  # KiB, once the modules are loaded
    started: float  # the guest's clock in seconds when the first process started


def parse(console: str) -> Boot:
    """Read the console. Raises ValueError if the guest did not come to its end."""
    free, started = _FREE.search(console.replace("\r", "")), _STARTED.search(console)
    if not free or not started:
        raise ValueError(f"the guest did not start: {console[-1000:]}")
    listed = sum(map(int, _LISTED.findall(console))) * _PAGE_KIB
    return Boot(int(free[1]) + listed, float(started[1]))


def variant(cmdline: str, words: str) -> tuple[str, bool]:
    """The other command line, and whether ``cmdline`` has the words. Pure."""
    have, these = cmdline.split(), words.split()
    if set(these) <= set(have):
        return " ".join(word for word in have if word not in these), True
    return f"{cmdline} {words}", False


def figures(words: str, note: str, usual: Boot, other: Boot, *, taken: bool) -> Iterator[Measured]:
    """What the words save; ``other`` is with them unless they are ``taken``. Pure."""
    without, with_them = (other, usual) if taken else (usual, other)
    name = f"{words} ({'taken' if taken else 'not taken'})"
    for group, unit, saved in (
        ("kernel parameters: memory saved", "MiB", (with_them.free - without.free) / 1024),
        ("kernel parameters: time to /init saved", "s of the guest's clock",
         without.started - with_them.started),
    ):  # fmt: skip
        yield Measured(group, name, unit, (saved,), COMMAND, more_is_better=True, note=note)


def measure(root: Root, parameters: Sequence[str] = tuple(PARAMETERS)) -> Iterator[Measured]:
    """Boot once as usual, and once for each of the parameters."""
    with tempfile.TemporaryDirectory() as name, bare.built(root) as image:
        place = Path(name)
        initrd = place / "image"
        initrd.write_bytes(with_init(image.packed, INIT, place / "tree"))
        # An image that is built for another machine does not know this one's memory.
        cmdline = f"{image.manifest.cmdline} no5lvl"

        def boot(words: str, label: str) -> Boot:
            machine = Machine(image.kernel, initrd, (words, *bare.CONSOLE), MEMORY_MIB,
                              hand="init", counts=True)  # fmt: skip
            with qemu.started(qemu.Qemu, machine, place / label) as vm:
                vm.wait_for_end(BOOT_SECONDS)
                return parse(vm.console)

        usual = boot(cmdline, "usual")
        for number, words in enumerate(parameters):
            other, taken = variant(cmdline, words)
            yield from figures(words, PARAMETERS.get(words, ""), usual, boot(other, str(number)),
                               taken=taken)  # fmt: skip


def with_init(packed: bytes, init: str, tree: Path) -> bytes:
    """An image with another /init: of files with one name in several archives, the last counts.

    An archive that is not compressed begins at a multiple of 4 bytes (buffer-format.rst).
    """
    added = initramfs.Tree(tree)
    added.put(init, "init")
    (tree / "init").chmod(0o755)
    archive = tree.parent / "init.cpio"
    added.pack(archive)
    return packed + bytes(-len(packed) % 4) + archive.read_bytes()
