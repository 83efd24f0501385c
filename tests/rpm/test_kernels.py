# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels come and go as Fedora's and openSUSE's packages do, under rpm 4 with dnf and rpm 6 with
dnf5. The guest's own kernel is Debian's with crashkernel=.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deb import archive
from tests.rpm import kernels, repository
from tests.rpm.test_install import DNF, OFFLINE, SECONDS, complaints, names
from tests.vmtest import rootfs
from tests.vmtest.machine import Disk
from tests.vmtest.rootfs import Recipe, Root
from tests.vmtest.vm import VM, running

DNF5 = ("dnf5", "-y", "--disable-plugin=local", "--repo=packages", "--no-gpgchecks",
        "--releasever=1", f"--repofrompath=packages,file://{repository.PLACE}")  # fmt: skip
PLUGIN = "/usr/lib/kernel/install.d/60-tinykdump.install"


@dataclass(frozen=True)
class Tool:
    recipe: Recipe
    rpm: str  # how its version begins
    dnf: tuple[str, ...]


TOOLS = {
    "rpm 4": Tool(repository.RPM4, "RPM version 4.", DNF),
    "rpm 6": Tool(repository.RPM6, "RPM version 6.", DNF5),
}


def dnf(vm: VM, tool: Tool, *words: str) -> list[str]:
    """A transaction; what tinykdump said in it."""
    done = vm.run([*tool.dnf, *words], timeout=SECONDS, env=OFFLINE)
    # dnf5 marks what scriptlets print.
    log = [line.removeprefix(">>> ") for line in (done.text + done.stderr.decode()).splitlines()]
    print(f"dnf {' '.join(words)}: {done.seconds:.1f} s\n" + "\n".join(log))
    said = [line for line in log if line.startswith("tinykdump: ")]
    assert complaints(line for line in log if line not in said and "OpenPGP" not in line) == []
    return said


def images(vm: VM) -> set[str]:
    return set(vm.run(["ls", "/var/lib/tinykdump/images"]).text.split())


@pytest.mark.parametrize("name", TOOLS)
def test_kernels_come_and_go(
    build_root: Callable[[Recipe], Root], tmp_path: Path, name: str
) -> None:
    tool = TOOLS[name]
    root = build_root(tool.recipe)
    output = tmp_path / "packages"
    kver, built = kernels.build(archive.kernel(build_root(Recipe())), output)
    base = tuple(repository.stand_in(made, output)
                 for made in (repository.BASE, repository.busybox(root.busybox, "1")))  # fmt: skip
    ours, trigger = (
        repository.binary(
            repository.build(repository.REPOSITORY, repository.work_tree(),
                             tmp_path / release, "--binary", f"--define=baserelease {release}",
                             *options)
        )
        for release, options in (("1", ()), ("2", ("--define=_with_kernel_trigger 1",)))
    )  # fmt: skip
    content = repository.archive((*base, ours, trigger, *built))
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/packages.tar").write_bytes(content)
    rootfs.make_image(tmp_path / "tree", tmp_path / "disk.img", size_mib=2 * len(content) // 2**20)
    disks = (Disk("root", root.image), Disk("packages", tmp_path / "disk.img"))
    machine = root.machine("crashkernel=192M", memory_mib=1024, disks=disks)
    with running(machine, tmp_path / "vm") as vm:
        vm.shell("mount -o ro /dev/vdb /mnt; tar -C / -xf /mnt/packages.tar")
        assert vm.run(["rpm", "--version"]).text.startswith(tool.rpm)
        vm.run(["rpm", "-i", *names(base)], timeout=SECONDS)
        vm.run(["rpm", "-i", *names((ours,))], timeout=SECONDS, env=OFFLINE)
        first = vm.run(["uname", "-r"]).text.strip()
        assert images(vm) == {first}
        come(vm, tool, "kernel", kver, first)
        go(vm, tool, kver, first)
        vm.run(["rpm", "-U", *names((trigger,))], timeout=SECONDS, env=OFFLINE)
        # As where kernel-install is not called: what follows is the trigger's.
        vm.run(["rm", PLUGIN])
        come(vm, tool, "kernel-default", kver, first)
        go(vm, tool, kver, first)


def come(vm: VM, tool: Tool, package: str, kver: str, first: str) -> None:
    """A kernel is installed beside the running one: it gets an image, which is loaded."""
    said = dnf(vm, tool, "install", package)
    assert said[-2].startswith(f"tinykdump: built the crash image of {kver}: ")
    assert said[-1].startswith("tinykdump: loaded; ")
    assert images(vm) == {first, kver}
    assert f"armed with {kver}\n" in vm.run(["tinykdump", "status"], check=False).text


def go(vm: VM, tool: Tool, kver: str, first: str) -> None:
    """That kernel's image goes with it, and the running one's is loaded."""
    everything = vm.run(["rpm", "-qa", "kernel*"]).text.split()
    said = dnf(vm, tool, "remove", *everything)
    assert said == [f"tinykdump: removed the crash image of {kver}; loaded {first}'s"]
    assert images(vm) == {first}
    assert f"armed with {first}\n" in vm.run(["tinykdump", "status"], check=False).text
