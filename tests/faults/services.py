# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows about building and loading: killed in the middle, without space, or twice at once."""

import json
from pathlib import Path
from typing import Any

from tests.faults.bench import Bench
from tests.faults.scenario import Scenario
from tests.vm import service
from tests.vmtest.machine import Stick
from tests.vmtest.vm import VM

KILLER = Path(__file__).parent / "killer.py"
STEPS = 100  # there are fewer
# xhci-pci-renesas names it.
FIRMWARE = "/lib/firmware/renesas_usb_fw.mem"


def status(vm: VM) -> dict[str, Any]:
    return dict(json.loads(vm.run(["tinykdump", "status", "--json"], check=False).text))


def killed_while_loading(bench: Bench) -> str:
    """tests/faults/test_kills.py does the same to the steps before: build and publish."""
    vm, places = bench.vm, []
    vm.put(KILLER, "/root/killer.py")
    size = service.reserved(vm)
    for number in range(1, STEPS):
        # Everything has to be done again: grow the reservation, and load.
        vm.shell("tinykdump unload; echo 16777216 >/sys/kernel/kexec_crash_size")
        killed = vm.run(["python3", "-I", "/root/killer.py", str(number), "load.py", "-l"],
                        check=False)  # fmt: skip
        if killed.status == 0:
            break
        assert killed.status == -9, f"step {number}: {killed}"
        places.append(" ".join(killed.text.split()[:2]))
        repaired = vm.run(["tinykdump", "-l"], check=False)
        assert repaired.status == 0, f"killed at {places[-1]}: {repaired}"
        assert service.reserved(vm) == size, f"killed at {places[-1]}: the reservation has changed"
        leftovers(vm, bench.kver, places[-1])
    assert 3 < len(places) < STEPS - 1, places
    assert status(vm)["armed"]
    bench.crash()
    return f"repaired after each of {len(places)} steps; {bench.saved()}"


def leftovers(vm: VM, kver: str, place: str) -> None:
    """Only the manifest, one image and the note of what is loaded are there."""
    images = vm.run(["ls", "-A", f"/var/lib/tinykdump/images/{kver}"]).text.split()
    assert len([name for name in images if name.endswith(".img")]) == 1, f"{place}: {images}"
    assert not [name for name in images if name.startswith(".")], f"{place}: {images}"
    run = vm.run(["ls", "-A", "/run/tinykdump"]).text.split()
    assert set(run) <= {"lock", "loaded.json"}, f"{place}: {run}"


def disk_full(directory: str, bench: Bench) -> str:
    """A changed configuration needs a new image, and there is no space for it."""
    vm = bench.vm
    vm.put(b"[image]\nmodules = loop\n", service.DROP_IN)
    fill = f"{directory}/fill"
    # Both end with an error, once nothing more fits.
    vm.shell(f"avail=$(df -Pk {directory} | awk 'NR == 2 {{print $4}}');"
             f"fallocate -l ${{avail}}K {fill} || true;"
             f"dd if=/dev/zero of={fill}.more bs=4k 2>/dev/null || true")  # fmt: skip
    failed = vm.run(["tinykdump", "-l"], check=False)
    said = failed.stderr.decode().splitlines()
    assert said and "space" in " ".join(said), f"status {failed.status}: {said}"
    assert "Traceback" not in failed.stderr.decode()
    assert status(vm)["armed"], "the machine is not armed any more"
    vm.shell(f"rm {fill} {fill}.more")
    vm.run(["tinykdump", "-l"])
    leftovers(vm, bench.kver, directory)
    assert "loop" in service.manifest(vm, bench.kver)["modules"]
    bench.crash()
    return f'"{said[0]}", still armed; then repaired; {bench.saved()}'


def two_at_once(bench: Bench) -> str:
    vm = bench.vm
    vm.put(b"[image]\nmodules = loop\n", service.DROP_IN)
    both = [vm.start(["tinykdump", "-l"]) for _ in range(2)]
    for each in both:
        vm.finish(each, ["tinykdump", "-l"])
    leftovers(vm, bench.kver, "two at once")
    state = status(vm)
    assert state["armed"], state
    bench.crash()
    return f"both end with 0; {bench.saved()}"


def changed_between(bench: Bench) -> str:
    vm = bench.vm
    vm.put(b"[dump]\nfinal_action = poweroff\n", service.DROP_IN)
    vm.run(["tinykdump", "-b"])
    vm.put(b"[dump]\nfinal_action = reboot\nwait = 7\n", service.DROP_IN)
    vm.run(["tinykdump", "-l"])
    bench.start()
    event = bench.wait()
    assert event["event"] == "RESET", event
    return f"the newer configuration holds; {bench.saved()}"


def full_var(bench: Bench) -> str:
    return disk_full("/var/lib/tinykdump", bench)


def full_run(bench: Bench) -> str:
    return disk_full("/run", bench)


def updated(bench: Bench) -> str:
    """The next boot, or the next `tinykdump -l`, puts both into the image."""
    vm = bench.vm
    service.reconfigure(vm, "[image]\nmodules = xhci_pci_renesas\n")
    before = service.manifest(vm, bench.kver)
    # Debian's are compressed with xz: with other options, the same module has other bytes.
    vm.shell(f"cd /lib/modules/{bench.kver}/kernel/drivers/usb/storage;"
             "xz -dc usb-storage.ko.xz | xz -0 --check=crc32 >new; mv new usb-storage.ko.xz;"
             f"mkdir -p {Path(FIRMWARE).parent}; echo text >{FIRMWARE}")  # fmt: skip
    vm.run(["tinykdump", "-l"])
    after = service.manifest(vm, bench.kver)
    assert after["sha256"] != before["sha256"], "the image was not built again"
    image = f"/var/lib/tinykdump/images/{bench.kver}/initramfs-{after['sha256'][:16]}.img"
    names = vm.shell(f"zstd -dc {image} | cpio -t --quiet").text.split()
    assert FIRMWARE.lstrip("/") in names, names
    bench.crash()
    return f"the image is built again; {bench.saved()}"


def suspended(bench: Bench) -> str:
    """S3: the memory stays, and everything else loses its power."""
    vm = bench.vm
    vm.start(["/bin/sh", "-c", "echo deep >/sys/power/mem_sleep; echo mem >/sys/power/state"])
    vm.wait_for_event("SUSPEND", timeout=120)
    vm.qmp("system_wakeup")
    vm.wait_for_event("WAKEUP", timeout=120)
    assert status(vm)["armed"]
    bench.crash()
    return bench.saved("ACPI: PM: Waking up from system sleep state S3")


def hibernated(bench: Bench) -> str:
    """The image is written to a disk and read again, without power off: test_resume does both."""
    vm = bench.vm
    swap = bench.workdir / "swap.img"
    with swap.open("wb") as disk:
        disk.truncate(1 << 30)
    vm.plug(Stick("swap", swap, port="7"))
    vm.shell("modprobe -a xhci_pci usb_storage sd_mod; until [ -e /sys/class/block/sdb ]; do "
             "sleep 0.2; done; for disk in sda sdb; do "
             "[ $(cat /sys/class/block/$disk/size) != 2097152 ] || break; done;"
             "mkswap /dev/$disk; swapon /dev/$disk; cat /sys/class/block/$disk/dev "
             ">/sys/power/resume; echo test_resume >/sys/power/disk")  # fmt: skip
    vm.run(["/bin/sh", "-c", "echo disk >/sys/power/state"], timeout=1200)
    log = vm.run(["dmesg"]).text
    assert "Hibernation image restored successfully" in log or "PM: hibernation: " in log, log
    vm.shell("swapoff -a")
    vm.unplug("swap")
    assert status(vm)["armed"]
    bench.crash()
    return bench.saved("PM: hibernation: hibernation exit")


ROWS = (
    Scenario("service", "killed-while-loading", "SIGKILL at each step of resize and load",
             "the next run repairs; no memory is lost", killed_while_loading, kernel="patched"),
    Scenario("service", "killed-while-building", "SIGKILL at each step of build and publish",
             "the next run repairs; the old image is whole until then",
             reason="no guest is needed: tests/faults/test_kills.py"),
    Scenario("service", "full-var", "no space in /var for a new image", "one line says so; the "
             "machine stays armed; the next run repairs", full_var),
    Scenario("service", "full-run", "no space in /run to build a new image", "one line says so; "
             "the machine stays armed; the next run repairs", full_run),
    Scenario("service", "two-at-once", "two `tinykdump -l` at the same time", "both succeed; a "
             "complete dump", two_at_once),
    Scenario("service", "changed-between", "the configuration changes between build and load",
             "the image is built again; a complete dump", changed_between),
    Scenario("service", "updated", "a module of the image and a firmware file are updated, and the "
             "kernel is not", "the image is built again; a complete dump", updated,
             kernel="stock"),
    Scenario("service", "suspended", "suspend to memory and resume while armed, then a panic",
             "a complete dump", suspended, kernel="stock"),
    Scenario("service", "hibernated", "hibernation and resume while armed, then a panic",
             "a complete dump", hibernated, kernel="stock"),
)  # fmt: skip
