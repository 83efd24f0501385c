# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows about building and loading: killed in the middle, without space, or twice at once."""

import json
from typing import Any

from tests.faults.bench import Bench
from tests.faults.scenario import Scenario
from tests.vm import service
from tests.vmtest.vm import VM

# Run in the guest with a number N: runs `tinykdump -l`, and kills it with SIGKILL at the N-th step.
# A step is the first time that a line of tinykdump changes the system or starts a program; what
# Python audits shows that before it happens. Prints the line.
KILLER = r"""
import os, runpy, signal, sys

at, seen = int(sys.argv[1]), set()
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate",
           "subprocess.Popen", "os.posix_spawn", "fcntl.flock", "shutil.rmtree"}

def caller():
    frame = sys._getframe(2)
    while frame and "/tinykdump/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame and f"{frame.f_code.co_filename.split('/tinykdump/')[-1]}:{frame.f_lineno}"

def hook(event, args):
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if not writes and event not in CHANGES:
        return
    place = caller()
    if place and place not in seen:
        seen.add(place)
        if len(seen) == at:
            print(f"{place} {event}", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
sys.argv = ["tinykdump", "-l"]
runpy.run_module("tinykdump", run_name="__main__", alter_sys=True)
"""
STEPS = 100  # there are fewer


def status(vm: VM) -> dict[str, Any]:
    return dict(json.loads(vm.run(["tinykdump", "status", "--json"], check=False).text))


def reset(vm: VM) -> None:
    """Unload, shrink the reservation, and remove the image: -l has to do all of its steps."""
    vm.shell("tinykdump unload >/dev/null 2>&1 || true; rm -rf /var/lib/tinykdump/images/*")


def killed_at_every_step(bench: Bench) -> str:
    vm, places = bench.vm, []
    vm.put(KILLER.encode(), "/root/killer.py")
    size = service.reserved(vm)
    for number in range(1, STEPS):
        reset(vm)
        killed = vm.run(["python3", "-I", "/root/killer.py", str(number)], check=False)
        if killed.status == 0:
            break
        assert killed.status == -9, f"step {number}: {killed}"
        places.append(killed.text.split()[-2])
        repaired = vm.run(["tinykdump", "-l"], check=False)
        assert repaired.status == 0, f"killed at {places[-1]}: {repaired}"
        assert service.reserved(vm) == size, f"killed at {places[-1]}: the reservation has changed"
        leftovers(vm, bench.kver, places[-1])
    else:
        raise AssertionError(f"more than {STEPS} steps")
    assert len(places) > 10, f"only {places}"
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


ROWS = (
    Scenario("service", "killed-at-every-step", "SIGKILL at each step of `tinykdump -l`: build, "
             "publish, resize, load", "the next run repairs; no memory is lost",
             killed_at_every_step),
    Scenario("service", "full-var", "no space in /var for a new image", "one line says so; the "
             "machine stays armed; the next run repairs", full_var),
    Scenario("service", "full-run", "no space in /run to build a new image", "one line says so; "
             "the machine stays armed; the next run repairs", full_run),
    Scenario("service", "two-at-once", "two `tinykdump -l` at the same time", "both succeed; a "
             "complete dump", two_at_once),
    Scenario("service", "changed-between", "the configuration changes between build and load",
             "the image is built again; a complete dump", changed_between),
)  # fmt: skip
