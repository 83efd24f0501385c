# SPDX-License-Identifier: GPL-2.0-or-later
"""The smallest reservation at which a capture succeeds: `make bench`.

One machine is armed and put to sleep; each try wakes it, makes the reservation as small as is
tried, loads the image into it and crashes. What tinykdump itself would reserve is shown beside.
"""

from dataclasses import dataclass
from pathlib import Path

from tests.vm import rootfs, service, snapshot, stick
from tests.vm.errors import MachineLost
from tests.vm.machine import Machine, Stick
from tests.vm.vm import VM, running

STEP_MIB = 4
CRASH_SECONDS = 400.0
_KEXEC = """
size=$1 kver=$2
tinykdump unload
echo $((size << 20)) >/sys/kernel/kexec_crash_size
cmdline=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["cmdline"])' \
    </var/lib/tinykdump/$kver/manifest.json)
kexec --load-panic --kexec-syscall-auto --initrd=/var/lib/tinykdump/$kver/initramfs.img \
    --append="$cmdline" /boot/vmlinuz-$kver
"""


@dataclass(frozen=True)
class Floor:
    """What one search found, in MiB."""

    smallest: int  # that captured
    computed: int  # that tinykdump reserves


def search(directory: Path, *, memory_mib: int = 1024, configuration: str = "",
           filesystem: stick.FileSystem = "vfat") -> Floor:  # fmt: skip
    """Find the floor by bisection, in steps of STEP_MIB."""
    root = rootfs.build()
    image = stick.make(directory / "stick.img", filesystem=filesystem)
    keys = service.key_pair(directory / "gnupg")
    machine = root.machine(
        "crashkernel=256M", memory_mib=memory_mib, sticks=(Stick("stick", image.path),)
    )
    computed = 0

    def arm(vm: VM) -> None:
        nonlocal computed
        service.install(vm, keys=keys, configuration=configuration)
        vm.run(["tinykdump", "-b"], timeout=300)
        vm.shell(f"cat > /root/load <<'E'\n{_KEXEC}\nE")
        estimate = (
            "from tinykdump import load, state; from tinykdump.host import Host; "
            f"print(load.need_of(Host(), state.read_manifest(Host(), '{root.kver}')).total)"
        )
        computed = int(vm.run(["python3", "-c", estimate]).text) >> 20

    with running(machine, directory / "arm") as vm:
        vm.wait_for_agent()
        arm(vm)
        snapshot.save(vm, directory / "armed")
    fails, works = 32, 192
    while works - fails > STEP_MIB:
        size = (fails + works) // 2 // STEP_MIB * STEP_MIB
        captured = try_size(machine, directory, root.kver, size)
        print(f"{size} MiB: {'captured' if captured else 'failed'}", flush=True)
        fails, works = (fails, size) if captured else (size, works)
    return Floor(works, computed)


def try_size(machine: Machine, directory: Path, kver: str, size_mib: int) -> bool:
    """Whether a crash kernel in ``size_mib`` leaves a complete dump on the stick."""
    workdir = directory / f"try-{size_mib}"
    with snapshot.resumed(machine, directory / "armed", workdir) as vm:
        vm.run(["sh", "-e", "/root/load", str(size_mib), kver])
        service.crash(vm, service.mark())
        try:
            vm.wait_for_reboot(CRASH_SECONDS)
        except MachineLost:
            return False
        path = vm.machine.stick("stick").image
    image = stick.Image(path, "vfat")
    return any(dump.complete for dump in service.dumps(image, workdir / "copy"))
