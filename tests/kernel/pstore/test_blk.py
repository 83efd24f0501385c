# SPDX-License-Identifier: GPL-2.0-or-later
"""A block device behind pstore/blk, which only takes what a worker writes later."""

from dataclasses import replace
from pathlib import Path

from tests.kernel.pstore.conftest import no_complaints
from tests.kernel.pstore.machine import running
from tests.vmtest.machine import Machine

# kmsg_size and so on in KiB. pstore is mounted first: before, nothing is written.
LOAD = (
    "for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci virtio_blk pstore_zone; do "
    "insmod /modules/$module.ko 2>/dev/null; done; "
    "insmod /modules/pstore_blk.ko blkdev=/dev/vda best_effort=Y kmsg_size=64 console_size=64 "
    "pmsg_size=0 ftrace_size=0 kexec_console_size=128 && mount -t pstore pstore /pstore"
)


def test_reboot_of_the_crash_kernel(patched: Machine, tmp_path: Path, token: str) -> None:
    disc = tmp_path / "disc.img"
    disc.write_bytes(b"\0" * (1 << 20))
    devices = ("-drive", f"file={disc},format=raw,if=virtio")
    with running(
        replace(patched.with_append("crashkernel=256M"), arguments=devices), tmp_path
    ) as machine:
        machine.boot("normal")
        machine.run(LOAD)
        machine.run(f"echo first-{token} >/dev/kmsg; sleep 3")
        machine.load_crash_kernel("nr_cpus=1 panic=1")
        machine.crash()
        machine.run(LOAD)
        machine.run(f"echo '<14>crash-{token}' >/dev/kmsg; sleep 3")
        machine.post("reboot -f")
        machine.boot("normal")
        machine.run(LOAD)
        records = machine.records()
        no_complaints(machine)
    assert f"crash-{token}" in records["kexec-console-pstore_blk-0"]
    assert "Linux version" in records["kexec-console-pstore_blk-0"]
    assert f"first-{token}" in records["console-pstore_blk-0"]
    assert f"crash-{token}" not in records["console-pstore_blk-0"]
