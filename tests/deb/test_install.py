# SPDX-License-Identifier: GPL-2.0-or-later
"""apt installs, upgrades and removes tinykdump, and kernels of Debian beside it, in a guest.

The guest is the usual one, Debian with its kernel and crashkernel=.
"""

import inspect
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deb import archive
from tests.rpm import distributions
from tests.rpm.test_install import complaints, is_armed, loaded
from tests.vm import service
from tests.vmtest import rootfs, snapshot
from tests.vmtest.errors import Result
from tests.vmtest.machine import Disk, Machine
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import VM, running

SECONDS = 900.0
PLACE = "/srv/packages"
# The guest has no systemd that runs, where nothing else is said.
QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
OFFLINE = {**QUIET, "SYSTEMD_OFFLINE": "1"}
APT = ("apt-get", "--quiet=2", "--yes", "--no-install-recommends",
       "--option=Dpkg::Use-Pty=0", "--option=Dpkg::Options::=--force-confold",
       "--option=APT::Sandbox::User=root")  # fmt: skip


@dataclass(frozen=True)
class Packages:
    """Files on this machine; in the guest they are in PLACE."""

    ours: Path
    later: Path  # release 2: other code for the crash kernel, another default configuration
    busybox: Path  # a later one
    kernel: tuple[Path, ...]
    initramfs_tool: Path

    @property
    def all(self) -> tuple[Path, ...]:
        return (self.ours, self.later, self.busybox, *self.kernel, self.initramfs_tool)

    @property
    def kver(self) -> str:
        """The version of the kernel that the tests install."""
        names = (path.name.split("_")[0] for path in self.kernel)
        return next(name for name in names if name.startswith("linux-image-6"))[12:]


def release_2(tree: Path) -> None:
    for name in ("etc/default/tinykdump", "usr/share/tinykdump/crash/lib.sh"):
        with (tree / name).open("a") as file:
            file.write("# release 2\n")


def longer(tree: Path) -> None:
    """busybox with other bytes, which works the same."""
    (program,) = (path for path in tree.rglob("bin/busybox") if path.is_file())
    with program.open("ab") as file:
        file.write(b"later")


@pytest.fixture(scope="module")
def packages(root: Root, tmp_path_factory: pytest.TempPathFactory) -> Packages:
    output = tmp_path_factory.mktemp("debs")
    ours = archive.binary(archive.work_tree(output / "ours"))
    return Packages(
        ours,
        later=archive.changed(ours, output, release_2),
        busybox=archive.changed(archive.of_the_guests("busybox-static"), output, longer),
        kernel=archive.kernel(root),
        initramfs_tool=archive.initramfs_tool(output),
    )


@pytest.fixture(scope="module")
def machine(root: Root, packages: Packages, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    image = archive.disk(packages.all, tmp_path_factory.mktemp("disk") / "packages.img")
    disks = (Disk("root", root.image), Disk("packages", image))
    return root.machine("crashkernel=192M", memory_mib=1024, disks=disks)


def prepare(vm: VM) -> None:
    """Let apt find the packages, and nothing else."""
    vm.shell(f"mkdir -p {PLACE}; mount -o ro /dev/vdb {PLACE}; rm -rf /etc/apt/sources.list*; "
             f"echo 'deb [trusted=yes] file:{PLACE} ./' >/etc/apt/sources.list")  # fmt: skip
    vm.run([*APT, "update"], env=QUIET, timeout=SECONDS)


@pytest.fixture(scope="module")
def installed(machine: Machine, packages: Packages) -> Path:
    """The machine after ``apt-get install ./tinykdump.deb``, whose output is in /root/log."""

    def install(vm: VM) -> None:
        prepare(vm)
        # In two steps, because the repository has the later one, too.
        done = vm.run([*APT, "install", f"{PLACE}/{packages.ours.name}"], env=OFFLINE,
                      timeout=SECONDS)  # fmt: skip
        vm.put(json.dumps([done.text + done.stderr.decode(), done.seconds]).encode(), "/root/log")

    content = [path.read_bytes() for path in packages.all]
    return snapshot.armed(machine, install, content, inspect.getsource(install),
                          inspect.getsource(prepare))  # fmt: skip


@pytest.fixture
def vm(machine: Machine, installed: Path, tmp_path: Path) -> Iterator[VM]:
    with snapshot.resumed(machine, installed, tmp_path / "vm") as awake:
        yield awake


def apt(vm: VM, *words: str, env: dict[str, str] = OFFLINE) -> list[str]:
    """A transaction; what tinykdump said in it. What the others said may not be a complaint."""
    done = vm.run([*APT, *words], env=env, timeout=SECONDS)
    print(f"apt-get {' '.join(words)}: {done.seconds:.1f} s\n{done.text}{done.stderr.decode()}")
    return ours(done)


def ours(done: Result) -> list[str]:
    everything = (done.text + done.stderr.decode()).splitlines()
    said = [line for line in everything if line.startswith("tinykdump: ")]
    # A package that was built on Debian 12 has its unit in /lib, which is a link in the guest.
    linked = "directory '/lib/systemd/system' not empty so not removed"
    others = (line for line in everything if line not in said and not line.endswith(linked))
    assert complaints(others) == []
    return said


def images(vm: VM) -> set[str]:
    return set(vm.run(["ls", "/var/lib/tinykdump/images"]).text.split())


def left_behind(vm: VM) -> list[str]:
    """What is called like us, outside of the tests' own places and dpkg's records."""
    places = "-path /proc -o -path /sys -o -path /srv -o -path /run/tinykdump-vm"
    found = vm.shell(f"find / \\( {places} \\) -prune -o -iname '*tinykdump*' -print").text
    records = ("/var/lib/dpkg/", "/var/lib/systemd/", "/etc/systemd/system/")
    return sorted(
        line
        for line in found.splitlines()
        if "tinykdump-vm-agent" not in line and not line.startswith(records)
    )


def test_installing_the_package_arms_the_machine(vm: VM, root: Root) -> None:
    said, _ = json.loads(vm.get("/root/log"))
    assert complaints(said.splitlines()) == []
    (line,) = (line for line in said.splitlines() if line.startswith("tinykdump: "))
    assert line.startswith(f"tinykdump: armed with {root.kver}; ")
    assert f"armed with {root.kver}\n" in vm.run(["tinykdump", "status"]).text
    assert loaded(vm) == "1"
    wants = "/etc/systemd/system/multi-user.target.wants/tinykdump.service"
    assert vm.run(["readlink", "-e", wants]).text.endswith("/systemd/system/tinykdump.service\n")
    verified = vm.run(["dpkg", "--verify", "tinykdump"]).text.splitlines()
    # The guests do without documentation.
    assert [
        line for line in verified if not re.match(r"missing +/usr/share/(doc|man)/", line)
    ] == []


def test_a_kernel_of_debian_comes_and_goes(vm: VM, root: Root, packages: Packages) -> None:
    """With its own scripts: an image is built for it and loaded, and goes with it."""
    said = apt(vm, "install", archive.KERNEL)
    assert said[-2].startswith(f"tinykdump: built the crash image of {packages.kver}: ")
    assert said[-1].startswith("tinykdump: loaded; ")
    assert images(vm) == {root.kver, packages.kver}
    assert f"armed with {packages.kver}\n" in vm.run(["tinykdump", "status"], check=False).text

    said = apt(vm, "remove", archive.KERNEL, f"linux-image-{packages.kver}")
    assert (
        said[-1] == f"tinykdump: removed the crash image of {packages.kver}; loaded {root.kver}'s"
    )
    assert images(vm) == {root.kver}
    assert is_armed(vm)


def test_an_upgrade_keeps_the_configuration_and_loads_the_new_code(vm: VM, root: Root) -> None:
    vm.shell("sed -i 's/^#wait = 60/wait = 33/' /etc/default/tinykdump")
    before = service.manifest(vm, root.kver)["plan"]
    said = apt(vm, "install", "tinykdump")
    assert [line[:18] for line in said] == ["tinykdump: rebuilt", "tinykdump: armed w"]
    assert vm.run(["dpkg-query", "-W", "tinykdump"]).text.endswith("+later\n")
    assert "wait = 33" in vm.get("/etc/default/tinykdump").decode()
    assert "# release 2" in vm.get("/etc/default/tinykdump.dpkg-dist").decode()
    after = service.manifest(vm, root.kver)["plan"]
    assert after != before
    assert json.loads(vm.get("/run/tinykdump/loaded.json"))["plan"] == after
    assert is_armed(vm)


def test_an_update_of_busybox_rebuilds_the_image(vm: VM, root: Root) -> None:
    before = service.manifest(vm, root.kver)["plan"]
    first, second = apt(vm, "install", "busybox-static")
    assert first.startswith(f"tinykdump: rebuilt the crash image of {root.kver}: ")
    assert second.startswith(f"tinykdump: armed with {root.kver}; ")
    assert service.manifest(vm, root.kver)["plan"] != before
    assert is_armed(vm)


def test_removing_and_purging_leave_the_keys(vm: VM, packages: Packages) -> None:
    first, second = apt(vm, "remove", "tinykdump")
    assert first.startswith("tinykdump: disarmed; ")
    assert second.endswith("stays in /var/lib/tinykdump/keys")
    assert loaded(vm) == "0"
    assert service.reserved(vm) == 0
    assert vm.run(["ls", "/var/lib/tinykdump"]).text == "keys\n"
    configuration = [
        "/etc/default/tinykdump", "/etc/kernel/postinst.d/tinykdump",
        "/etc/kernel/postrm.d/tinykdump",
    ]  # fmt: skip
    assert left_behind(vm) == [*configuration, "/var/lib/tinykdump"]
    # Another kernel's transaction, while the hooks are there and the program is not.
    vm.run(["linux-run-hooks", "image", "postinst", "6.12.9", "/boot/vmlinuz-6.12.9", "--",
            "configure"], check=False)  # fmt: skip
    assert apt(vm, "purge", "tinykdump") == []
    assert left_behind(vm) == ["/var/lib/tinykdump"]

    (line,) = apt(vm, "install", f"{PLACE}/{packages.ours.name}")
    assert line.startswith("tinykdump: not armed: no memory is reserved for a crash kernel")


def test_with_systemd(machine: Machine, root: Root, packages: Packages, tmp_path: Path) -> None:
    """The service is enabled, arms at boot, and is gone after the removal."""
    with running(
        root.machine("crashkernel=192M", memory_mib=1024, disks=machine.disks,
                     init=rootfs.SYSTEMD), tmp_path / "vm",
    ) as vm:  # fmt: skip
        prepare(vm)
        (line,) = apt(vm, "install", f"{PLACE}/{packages.ours.name}", env=QUIET)
        assert line.startswith(f"tinykdump: armed with {root.kver}; ")
        unit = "tinykdump.service"
        assert vm.run(["systemctl", "is-enabled", unit]).text == "enabled\n"
        # As at the next boot.
        vm.run(["tinykdump", "unload"])
        vm.run(["systemctl", "start", unit], timeout=SECONDS)
        assert is_armed(vm)
        said = apt(vm, "remove", "tinykdump", env=QUIET)
        assert said[0].startswith("tinykdump: disarmed; ")
        assert loaded(vm) == "0"
        state = vm.run(["systemctl", "is-active", unit], check=False).text
        assert state == "inactive\n"


def test_debian_has_what_the_table_says(root: Root) -> None:
    """Each file, in a package that is installed in the version that is named."""
    for name, need in distributions.ALL["debian"].needs.items():
        command = ["dpkg-query", f"--admindir={root.tree}/var/lib/dpkg", "--show",
                   "--showformat=${db:Status-Status} ${Version}", need.package]  # fmt: skip
        shown = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        status, version = shown.split() or ("absent", "")
        if status != "installed" and need.recommended:
            continue
        assert status == "installed", name
        assert need.version in version, name
        modules = [root.tree / f"usr/lib/python3/dist-packages/{need.file}{end}"
                   for end in ("", ".py")]  # fmt: skip
        places = [root.tree / need.file[1:]] if need.file.startswith("/") else modules
        assert any(path.exists() or path.is_symlink() for path in places), need.file
