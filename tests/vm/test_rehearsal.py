# SPDX-License-Identifier: GPL-2.0-or-later
"""`tinykdump test --rehearse` on this host, with the kernel and the programs of Debian's root.

The root is a directory tree, and QEMU is this host's. The sticks have ext4: this host's kernel
may not mount FAT, which is then said.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from kernel.build import Request
from tests import plugged
from tests.fakehost import FakeHost
from tests.vm import service
from tests.vmtest import kernels
from tests.vmtest.kernels import Kernel
from tests.vmtest.rootfs import Root
from tinykdump import actions, cli, keys, rehearsal
from tinykdump.config_files import load_config
from tinykdump.image.manifest import parse
from tinykdump.memory import MIB

CONFIG = "/etc/default/tinykdump"
EXT4 = "[dump]\nfilesystems = ext4\n"


@pytest.fixture(scope="module")
def tree(root: Root, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHost]:
    """The root with an image for ext4, to the key of the machine."""
    made = FakeHost(tmp_path_factory.mktemp("host") / "root")
    subprocess.run(["cp", "-a", root.tree, made.root], check=True)  # it has device nodes
    made.write(CONFIG, EXT4)
    keys.machine_key(made.host, create=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYKDUMP_ROOT", str(made.root))
        assert cli.main(["--kernel", root.kver, "-b"]) == 0
        yield made
    shutil.rmtree(made.root)


@pytest.fixture
def host(tree: FakeHost) -> Iterator[FakeHost]:
    """The same for each test, without the stick of another one."""
    yield tree
    for name in ("/sys/class", "/sys/devices", "/dev/sdb", "/dev/sdb1", "/dev/disk"):
        if tree.path(name).exists():
            tree.remove(name)


def test_it_passes_and_is_noted(
    host: FakeHost, root: Root, capfd: pytest.CaptureFixture[str]
) -> None:
    """The dump is decrypted and read, and only the console is left."""
    assert cli.main(["--kernel", root.kver, "test", "--rehearse"]) == 0
    out, err = capfd.readouterr()
    says = "saved; log and vmcore were decrypted and read"
    assert out == f"the rehearsal of {root.kver} passed: {says}\n"
    assert "found the stick: /dev/sda" in err
    noted = rehearsal.last(host.host)
    image = parse(
        host.path(f"/var/lib/tinykdump/images/{root.kver}/manifest.json").read_text(), "m"
    )
    assert noted is not None
    assert (noted.passed, noted.kernel, noted.result) == (True, root.kver, says)
    assert rehearsal.problem(noted, image) == ""
    assert [each.name for each in host.path(str(rehearsal.PLACE)).iterdir()] == ["console.log"]


def test_the_small_crash_kernel(
    host: FakeHost,
    root: Root,
    build_kernel: Callable[[Request], Kernel],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The installed kernel crashes, and the small one saves the dump."""
    small = build_kernel(kernels.SMALL)
    subprocess.run(["make", "install-crash-kernel", f"CRASH_KERNEL={small.directory}",
                    f"DESTDIR={host.root}"], check=True, cwd=service.REPOSITORY)  # fmt: skip
    host.write(CONFIG, f"{EXT4}[image]\nkernel = small\n")
    try:
        image, _ = actions.build_image(host.host, load_config(host.host, {}), root.kver)
        assert (image.kver, image.modules) == (small.kver, ())
        assert cli.main(["--kernel", root.kver, "test", "--rehearse"]) == 0
    finally:
        host.write(CONFIG, EXT4)
    out, err = capfd.readouterr()
    says = "saved; log and vmcore were decrypted and read"
    assert out.endswith(f"the rehearsal of {root.kver} passed: {says}\n")
    assert f"rehearsing {root.kver}: a guest with 512 MiB, 36 MiB of them reserved" in err
    assert f"crash kernel {small.kver} is up" in err


def test_a_dump_to_a_key_that_is_not_here(
    host: FakeHost, root: Root, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its sums are checked."""
    secret = host.path(f"{keys.MACHINE_KEYS}/private-keys-v1.d")
    secret.rename(secret.with_name("away"))
    try:
        assert cli.main(["--kernel", root.kver, "test", "--rehearse"]) == 0
    finally:
        shutil.rmtree(secret, ignore_errors=True)
        secret.with_name("away").rename(secret)
    assert "the sums are right; not decrypted, because" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("reserved", "says"),
    [
        (16 * MIB, "the crash kernel and its image do not fit into the reserved memory"),
        (68 * MIB, "it ran out of memory, with 68 MiB reserved"),
    ],
)
def test_too_little_memory(host: FakeHost, root: Root, reserved: int, says: str) -> None:
    found = rehearsal.subject(host.host, load_config(host.host, {}), root.kver)
    what = replace(found, reserved=reserved)
    done = rehearsal.rehearse(host.host, what, print)
    assert not done.passed
    assert says in done.result
    assert f"{reserved // MIB} MiB reserved" in done.result
    problem = rehearsal.problem(rehearsal.last(host.host), None)
    assert f" failed: {done.result} (read /var/lib/tinykdump/rehearsal/console.log" in problem


def test_a_stick_that_the_image_cannot_mount(
    host: FakeHost, root: Root, capfd: pytest.CaptureFixture[str]
) -> None:
    """The stick that is plugged in has FAT."""
    plugged.plug(host, "vfat")
    assert cli.main(["--kernel", root.kver, "test", "--rehearse"]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"tinykdump: the rehearsal of {root.kver} failed: cannot mount /dev/sda with any file "
        "system of this image: ext4 (read /var/lib/tinykdump/rehearsal/console.log)"
    )
