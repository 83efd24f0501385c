# SPDX-License-Identifier: GPL-2.0-or-later
"""Both packages on a machine without crashkernel=: from rpm -i to a dump of the new kernel."""

import hmac
import lzma
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kernel.build import Plan
from tests.kernel.package import packages
from tests.kernel.package.packages import KernelPackage
from tests.rpm import repository
from tests.rpm.test_install import DNF, OFFLINE, SECONDS, left_behind, lines, names, note, rpm
from tests.vm import service, vmcore
from tests.vmtest import initramfs, rootfs, stick
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import Machine, Stick
from tests.vmtest.rootfs import Recipe, Root
from tests.vmtest.vm import VM, running

# The first test waits for the kernel to be built.
pytestmark = pytest.mark.timeout(3 * 3600)

CRASH_SECONDS = 600.0
MIB = 1 << 20
# How far apart two figures of memory may be that should be the same.
NOISE = 24 * MIB

# Beside ours, to see what it adds to kernel-install's time.
WITNESS = '#!/bin/sh\necho "witness $(cut -d" " -f1 /proc/uptime)"\n'


@pytest.fixture(autouse=True)
def _times(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "times", request.node.user_properties)


@pytest.fixture(scope="module")
def root(build_root: Callable[[Recipe], Root]) -> Root:
    return build_root(repository.RPM4)


@pytest.fixture(scope="module")
def old(plan: Plan) -> KernelPackage:
    return packages.build(plan, "1")


@pytest.fixture(scope="module")
def new(plan: Plan, old: KernelPackage) -> KernelPackage:
    assert old.release == "1"  # built first: what comes after goes on from its objects
    return packages.build(plan, "2")


@pytest.fixture(scope="module")
def releases(old: KernelPackage, new: KernelPackage) -> tuple[KernelPackage, KernelPackage]:
    return old, new


@pytest.fixture(scope="module")
def machine(kernel: Kernel, root: Root) -> Machine:
    return kernel.machine(root)


@pytest.fixture(scope="module")
def ours(root: Root, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Path, ...]]:
    """tinykdump, and what it requires."""
    output = tmp_path_factory.mktemp("packages")
    base = (repository.BASE, repository.busybox(root.busybox, "1"))
    stand_ins = tuple(repository.stand_in(made, output) for made in base)
    built = repository.build(repository.REPOSITORY, repository.work_tree(), output / "1")
    return repository.binary(built), stand_ins


def status(vm: VM) -> str:
    return vm.run(["tinykdump", "status"], check=False).text


def images(vm: VM) -> set[str]:
    return set(vm.run(["ls", "/var/lib/tinykdump/images"]).text.split())


def dnf(vm: VM, *words: str) -> list[str]:
    """A transaction; what tinykdump said in it."""
    done = vm.run([*DNF, *words], timeout=SECONDS, env=OFFLINE)
    note(f"dnf {' '.join(words)}", done)
    seen = [float(line.split()[1]) for line in done.text.splitlines() if "witness" in line]
    if seen:
        repository.times.append(("time", f"our plugin {seen[-1] - seen[0]:.1f} s of that"))
    return lines(done)


def test_modules_are_signed_and_the_debuginfo_has_dwarf(new: KernelPackage, tmp_path: Path) -> None:
    modules = new.unpack(tmp_path / "kernel")
    found = list(modules.rglob("*.ko*"))
    assert {path.suffix for path in found} == {".xz"}
    for path in found:
        content = lzma.decompress(path.read_bytes())
        assert content.endswith(b"~Module signature appended~\n"), path.name
    cpio = subprocess.run(["rpm2cpio", new.debuginfo], check=True, capture_output=True).stdout
    subprocess.run(["cpio", "--extract", "--make-directories", "--quiet"], input=cpio,
                   cwd=tmp_path, check=True)  # fmt: skip
    vmlinux = tmp_path / f"usr/lib/debug/lib/modules/{new.kver}/vmlinux"
    sections = subprocess.run(["readelf", "-SW", vmlinux], check=True, capture_output=True).stdout
    assert b".debug_info" in sections


def test_the_kernel_image_has_its_sum_for_fips(new: KernelPackage, tmp_path: Path) -> None:
    modules = new.unpack(tmp_path / "kernel")
    content = (modules / "vmlinuz").read_bytes()
    digest = hmac.digest(b"FIPS-FTW-RHT2009", content, "sha512").hex()
    assert (modules / ".vmlinuz.hmac").read_text() == f"{digest}  vmlinuz-{new.kver}\n"


def test_from_rpm_to_a_dump(
    machine: Machine,
    root: Root,
    releases: tuple[KernelPackage, KernelPackage],
    ours: tuple[Path, tuple[Path, ...]],
    tmp_path: Path,
) -> None:
    old, new = releases
    image = stick.make(tmp_path / "stick.img")
    machine = machine.with_stick(Stick("stick", image.path))
    assert not [word for word in machine.append if word.startswith("crashkernel=")]
    tinykdump, stand_ins = ours
    with running(machine, tmp_path / "vm") as vm:
        content = repository.archive((tinykdump, *stand_ins, old.kernel, new.kernel))
        vm.put(content, "/run/packages.tar")
        vm.run(["tar", "-C", "/", "-xf", "/run/packages.tar"])
        for number in ("59", "61"):
            vm.put(WITNESS.encode(), f"/etc/kernel/install.d/{number}-witness.install", mode=0o755)
        vm.run(["rpm", "-i", *names(stand_ins)], timeout=SECONDS)
        install_erase_install(vm, tinykdump)
        two_kernels(vm, old, new)
        vm.run(["sync"])
    modules = new.unpack(tmp_path / "new")
    with booted(machine, modules, root, tmp_path / "vm") as vm:
        mark = armed_by_the_service(vm, new)
        vm.wait_for_reboot(CRASH_SECONDS)
        keys = tmp_path / "keys"
        vm.wait_for_agent(SECONDS)
        copy_keys(vm, keys)
    (dump,) = service.dumps(image, tmp_path / "copy")
    assert dump.complete
    service.restore(dump, tmp_path / "restored", keys)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")


def install_erase_install(vm: VM, package: Path) -> None:
    running_kernel = vm.run(["uname", "-r"]).text.strip()
    assert service.reserved(vm) == 0
    before = service.available(vm)
    for _ in range(2):
        line = lines(rpm(vm, "-i", *names((package,))))[-1]
        assert line.startswith(f"tinykdump: armed with {running_kernel}; ")
        assert f"armed with {running_kernel}\n" in status(vm)
        assert service.reserved(vm) > 32 * MIB
        if _ == 0:
            rpm(vm, "-e", "tinykdump")
            assert service.reserved(vm) == 0
            assert abs(service.available(vm) - before) < NOISE
            assert left_behind(vm) == ["/var/lib/tinykdump"]


def two_kernels(vm: VM, old: KernelPackage, new: KernelPackage) -> None:
    """Installed beside each other, each with its image; the old one goes, and its image with it."""
    first = vm.run(["uname", "-r"]).text.strip()
    for package in (old, new):
        said = dnf(vm, "install", package.nevra)
        assert said[-2].startswith(f"tinykdump: built the crash image of {package.kver}: ")
        assert said[-1].startswith("tinykdump: loaded; ")
        assert f"armed with {package.kver}\n" in status(vm)
    installed = vm.run(["rpm", "-q", "kernel-tinykdump"]).text.split()
    assert sorted(installed) == [old.nevra, new.nevra]
    assert images(vm) == {first, old.kver, new.kver}
    dnf(vm, "remove", old.nevra)
    assert images(vm) == {first, new.kver}
    assert f"armed with {new.kver}\n" in status(vm)
    assert vm.run(["ls", f"/lib/modules/{old.kver}"], check=False).status != 0


@contextmanager
def booted(machine: Machine, modules: Path, root: Root, workdir: Path) -> Iterator[VM]:
    """The same disks with the package's kernel, and with systemd."""
    again = replace(
        machine,
        kernel=modules / "vmlinuz",
        initrd=initramfs.build(modules, root.busybox),
        append=(*machine.append, *rootfs.SYSTEMD),
    )
    with running(again, workdir) as vm:
        vm.wait_for_agent(SECONDS)
        yield vm


def armed_by_the_service(vm: VM, new: KernelPackage) -> str:
    """Wait for the service, crash; the mark."""
    assert vm.run(["uname", "-r"]).text.strip() == new.kver
    vm.run(["systemctl", "start", "tinykdump.service"], timeout=SECONDS)  # or wait for it
    assert vm.run(["systemctl", "is-enabled", "tinykdump.service"]).text == "enabled\n"
    assert f"armed with {new.kver}\n" in status(vm)
    unsigned = 1 << 13  # TAINT_UNSIGNED_MODULE
    assert not int(vm.run(["cat", "/proc/sys/kernel/tainted"]).text) & unsigned
    mark = service.mark()
    service.crash(vm, mark)
    return mark


def copy_keys(vm: VM, target: Path) -> None:
    """The machine's own key, as the README says how to take it elsewhere."""
    home = "/var/lib/tinykdump/keys"
    secret = vm.run(["gpg", "--homedir", home, "--export-secret-keys"]).stdout
    target.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(target), "--batch", "--quiet", "--import"]
    subprocess.run(gpg, input=secret, check=True)
    subprocess.run(["gpgconf", "--homedir", str(target), "--kill", "all"], check=True)
