# SPDX-License-Identifier: GPL-2.0-or-later
"""rpm and dnf install, upgrade and erase tinykdump on a system that runs.

Its kernel is Debian's with crashkernel=; tests/kernel/package does the same with kernel-tinykdump.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rpm import repository
from tests.rpm.repository import PLACE, StandIn
from tests.vm import service
from tests.vmtest import snapshot
from tests.vmtest.errors import Result
from tests.vmtest.machine import Machine
from tests.vmtest.rootfs import Recipe, Root
from tests.vmtest.vm import VM
from tinykdump import __version__

SECONDS = 600.0
# The guest has no systemd that runs; systemctl works on the files, as in a chroot.
OFFLINE = {"SYSTEMD_OFFLINE": "1"}
DNF = ("dnf", "-y", "--disablerepo=*", "--nogpgcheck", "--releasever=1",
       f"--repofrompath=packages,file://{PLACE}")  # fmt: skip
UNIT = "/usr/lib/systemd/system/kdump.service"


@dataclass(frozen=True)
class Packages:
    """Files on this machine, by what the tests call them."""

    base: tuple[Path, ...]
    first: Path
    second: Path
    busybox: Path  # the newer one
    other: Path  # something else in /usr/bin
    kdump: Path  # a package with another dumper's unit

    def all(self) -> tuple[Path, ...]:
        return (*self.base, self.first, self.second, self.busybox, self.other, self.kdump)


@pytest.fixture(autouse=True)
def _times(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "times", request.node.user_properties)


def note(what: str, done: Result) -> None:
    """Show a transaction, and keep what it took, and ours of that, as tinykdump itself says it."""
    log = done.text + done.stderr.decode()
    print(f"{what}: {done.seconds:.1f} s\n{log}")
    note_seconds(what, done.seconds, log)


def note_seconds(what: str, seconds: float, log: str) -> None:
    ours = re.findall(r"tinykdump: armed .* \(([0-9.]+) s\)", log)
    share = f", of which ours {ours[-1]} s" if ours else ""
    repository.times.append(("time", f"{what} {seconds:.1f} s{share}"))


@pytest.fixture(scope="module")
def root(build_root: Callable[[Recipe], Root]) -> Root:
    return build_root(repository.RPM4)


@pytest.fixture(scope="module")
def packages(root: Root, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    output = tmp_path_factory.mktemp("packages")

    def stand_in(made: StandIn) -> Path:
        return repository.stand_in(made, output)

    built = repository.build(repository.REPOSITORY, repository.work_tree(), output / "1")
    return Packages(
        base=(stand_in(repository.BASE), stand_in(repository.busybox(root.busybox, "1"))),
        first=repository.binary(built),
        second=repository.changed(output / "clone", output / "2"),
        busybox=stand_in(repository.busybox(root.busybox, "2")),
        other=stand_in(StandIn("other", file="/usr/bin/other")),
        kdump=stand_in(StandIn("kdump-utils", file=UNIT, content=b"[Unit]\n")),
    )


@pytest.fixture(scope="module")
def machine(root: Root) -> Machine:
    return root.machine("crashkernel=192M", memory_mib=1024)


@pytest.fixture(scope="module")
def installed(machine: Machine, packages: Packages) -> Path:
    """The machine after ``rpm -i tinykdump``, whose output is in /root/log."""

    def install(vm: VM) -> None:
        vm.put(repository.archive(packages.all()), "/run/packages.tar")
        vm.run(["tar", "-C", "/", "-xf", "/run/packages.tar"])
        vm.run(["rpm", "-i", *names(packages.base)], timeout=SECONDS)
        done = vm.run(["rpm", "-i", *names((packages.first,))], timeout=SECONDS, env=OFFLINE)
        vm.put(json.dumps([done.text + done.stderr.decode(), done.seconds]).encode(), "/root/log")

    content = [path.read_bytes() for path in packages.all()]
    return snapshot.armed(machine, install, content, inspect.getsource(install))


@pytest.fixture
def vm(machine: Machine, installed: Path, tmp_path: Path) -> Iterator[VM]:
    with snapshot.resumed(machine, installed, tmp_path / "vm") as awake:
        yield awake


def names(packages: tuple[Path, ...]) -> list[str]:
    """Where they are in the guest."""
    return [f"{PLACE}/{path.name}" for path in packages]


def rpm(vm: VM, option: str, *words: str) -> Result:
    done = vm.run(["rpm", option, *words], timeout=SECONDS, env=OFFLINE)
    note(f"rpm {option}", done)
    return done


def lines(result: Result) -> list[str]:
    """What tinykdump said. What the others said may be anything but a complaint."""
    everything = (result.text + result.stderr.decode()).splitlines()
    ours = [line for line in everything if line.startswith("tinykdump: ")]
    assert complaints(line for line in everything if line not in ours) == []
    return ours


def complaints(log: Iterable[str]) -> list[str]:
    """Lines that should not be there; that rpm keeps a changed file is its way to say so."""
    kept = re.compile(r"(created|saved) as \S+\.rpm(new|save)$")
    wrong = re.compile(r"error|fail|warning|traceback", re.I)
    return [line for line in log if wrong.search(line) and not kept.search(line)]


def is_armed(vm: VM) -> bool:
    return vm.run(["tinykdump", "status"], check=False).status == 0


def loaded(vm: VM) -> str:
    return vm.run(["cat", "/sys/kernel/kexec_crash_loaded"]).text.strip()


def left_behind(vm: VM) -> list[str]:
    """What is called like us, outside of the tests' own places."""
    places = "-path /proc -o -path /sys -o -path /srv -o -path /run/tinykdump-vm"
    places += " -o -path /usr/lib/modules"  # a kernel may be called so
    found = vm.shell(f"find / \\( {places} \\) -prune -o -iname '*tinykdump*' -print").text
    return [line for line in found.splitlines() if "tinykdump-vm-agent" not in line]


def test_installing_the_package_arms_the_machine(vm: VM, root: Root) -> None:
    said, seconds = json.loads(vm.get("/root/log"))
    note_seconds("rpm -i", seconds, said)
    assert complaints(said.splitlines()) == []
    line = said.splitlines()[-1]
    assert line.startswith(f"tinykdump: armed with {root.kver}; ")
    status = vm.run(["tinykdump", "status"])
    assert f"armed with {root.kver}\n" in status.text
    # The machine has made a key of its own, which nobody has copied yet.
    (problem,) = (line for line in status.text.splitlines() if line.startswith("problem:"))
    assert "only this machine can read its dumps" in problem
    assert loaded(vm) == "1"
    wants = "/etc/systemd/system/multi-user.target.wants/tinykdump.service"
    assert vm.run(["readlink", wants]).text == "/usr/lib/systemd/system/tinykdump.service\n"
    assert rpm(vm, "-V", "tinykdump").text == ""
    owners = {each["source"]: each["package"] for each in service.manifest(vm, root.kver)["inputs"]}
    assert owners["/usr/bin/busybox"] == "busybox-1-1.x86_64"


def test_an_upgrade_keeps_the_configuration_and_loads_the_new_code(vm: VM, root: Root) -> None:
    vm.shell("sed -i 's/^#wait = 60/wait = 33/' /etc/default/tinykdump")
    before = service.manifest(vm, root.kver)["plan"]
    done = vm.run([*DNF, "upgrade", "tinykdump"], timeout=SECONDS, env=OFFLINE)
    note("dnf upgrade", done)
    assert [line[:18] for line in lines(done)] == ["tinykdump: rebuilt", "tinykdump: armed w"]
    assert vm.run(["rpm", "-q", "tinykdump"]).text.startswith(f"tinykdump-{__version__}-2")
    assert "wait = 33" in vm.get("/etc/default/tinykdump").decode()
    assert "# release 2" in vm.get("/etc/default/tinykdump.rpmnew").decode()
    after = service.manifest(vm, root.kver)["plan"]
    assert after != before
    assert json.loads(vm.get("/run/tinykdump/loaded.json"))["plan"] == after
    assert is_armed(vm)


def test_erase_leaves_keys_and_nothing_else_and_reinstalling_says_what_is_missing(
    vm: VM, packages: Packages
) -> None:
    first, second = lines(rpm(vm, "-e", "tinykdump"))
    assert first.startswith("tinykdump: disarmed; ")
    assert second.endswith("stays in /var/lib/tinykdump/keys")
    assert left_behind(vm) == ["/var/lib/tinykdump"]
    assert vm.run(["ls", "/var/lib/tinykdump"]).text == "keys\n"
    assert loaded(vm) == "0"
    assert service.reserved(vm) == 0

    done = vm.run([*DNF, "install", packages.first.stem.removesuffix(".noarch")],
                  timeout=SECONDS, env=OFFLINE)  # fmt: skip
    (line,) = lines(done)
    assert line.startswith("tinykdump: not armed: no memory is reserved for a crash kernel")


def test_an_update_of_busybox_rebuilds_the_image(vm: VM, root: Root, packages: Packages) -> None:
    before = service.manifest(vm, root.kver)
    assert lines(rpm(vm, "-i", *names((packages.other,)))) == []
    first, second = lines(rpm(vm, "-U", *names((packages.busybox,))))
    assert first.startswith(f"tinykdump: rebuilt the crash image of {root.kver}: ")
    assert second.startswith(f"tinykdump: armed with {root.kver}; ")
    after = service.manifest(vm, root.kver)
    assert after["plan"] != before["plan"]
    assert after["key"] == before["key"]
    owners = {each["source"]: each["package"] for each in after["inputs"]}
    assert owners["/usr/bin/busybox"] == "busybox-2-1.x86_64"
    assert is_armed(vm)


def test_beside_another_dumper(vm: VM, root: Root, packages: Packages) -> None:
    """Its unit is there, and its crash kernel is loaded."""
    vm.run(["tinykdump", "unload"])
    rpm(vm, "-i", *names((packages.kdump,)))
    vm.shell(f"kexec -p -a --reuse-cmdline /boot/vmlinuz-{root.kver}")
    (line,) = lines(rpm(vm, "-U", "--replacepkgs", *names((packages.first,))))
    assert line.startswith("tinykdump: not armed: another program's crash kernel is loaded")
    assert (
        "another program's crash kernel is loaded"
        in vm.run(["tinykdump", "status"], check=False).text
    )
    _, line = lines(rpm(vm, "-e", "tinykdump"))
    assert line.startswith("tinykdump: erase: the loaded crash kernel is not tinykdump's")
    assert loaded(vm) == "1"
    assert vm.run(["ls", UNIT]).status == 0


def test_kernel_install_by_hand(vm: VM, root: Root) -> None:
    """With a read-only /boot, then in a chroot, where nothing is loaded."""
    vm.shell("mount --bind /boot /boot; mount -o remount,bind,ro /boot")
    image = f"/boot/vmlinuz-{root.kver}"
    add = ["kernel-install", "add", root.kver, image]
    vm.shell("ln -sf /dev/null /etc/kernel/install.d/50-depmod.install")  # a minute of emulation
    (kept, armed) = lines(vm.run(add, timeout=SECONDS))
    assert kept.startswith(f"tinykdump: kept the crash image of {root.kver}: ")
    assert armed.startswith("tinykdump: loaded; ")

    vm.run(["tinykdump", "unload"])
    vm.shell(
        "mkdir /run/other; cd /run/other; mount -t tmpfs other .; cd /run/other; "
        "cp -a /bin /sbin /lib /lib64 .; mkdir usr etc var boot proc sys dev run tmp; "
        "for each in usr etc var boot proc sys dev; do mount --rbind /$each $each; done"
    )
    (built, outside) = lines(vm.run(["chroot", "/run/other", *add], timeout=SECONDS))
    assert built.startswith(f"tinykdump: built the crash image of {root.kver}: ")
    assert outside == "tinykdump: not loaded: this is not the running system"
    assert loaded(vm) == "0"
    assert "ehci_pci" in service.manifest(vm, root.kver)["modules"]
    assert lines(vm.run(["chroot", "/run/other", "kernel-install", "remove", root.kver])) == []
    assert vm.run(["ls", "/var/lib/tinykdump/images"]).text == ""
    assert vm.run(["ls", "/var/lib/tinykdump/keys"]).text != ""
