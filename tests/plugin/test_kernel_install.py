# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin under the real kernel-install, which works on a directory tree."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakehost import KVER, NAMES, STATE, FakeHost, bzimage, unified
from tinykdump import cli, keys

CHECKOUT = Path(__file__).parents[2]
MACHINE_ID = "0123456789abcdef0123456789abcdef"
PLUGIN = CHECKOUT / "kernel-install.d/60-tinykdump.install"
LOADER_ENTRY = "/usr/lib/kernel/install.d/90-loaderentry.install"


@pytest.fixture
def kernel_install(fake_with_programs: FakeHost) -> "KernelInstall":
    return KernelInstall(fake_with_programs)


class KernelInstall:
    """kernel-install with our plugin, and a second plugin that records that it ran."""

    def __init__(self, fake: FakeHost) -> None:
        self.fake = fake
        # None is made in a tree.
        keys.machine_key(fake.host, create=True)
        fake.path("/etc/kernel").mkdir()
        fake.path("/boot").mkdir()
        self.boot = fake.path("/boot")
        self.kernel = fake.write("/boot/vmlinuz", bzimage())
        # It runs only if our plugin has not ended the transaction.
        self.witness = fake.write("/70-witness.install",
            '#!/bin/sh\nls -A "$KERNEL_INSTALL_STAGING_AREA" >"$WITNESS"\n', 0o755)  # fmt: skip
        self.python = fake.write("/python",
            f'#!/bin/sh\nshift\nPYTHONPATH={CHECKOUT}/src exec {sys.executable} "$@"\n',
            0o755)  # fmt: skip

    def __call__(
        self,
        *words: str | Path,
        python: str = "",
        machine_id: str = MACHINE_ID,
        plugins: str = "",
    ) -> tuple[int, list[str]]:
        """Run kernel-install; returns its exit status and its output in lines."""
        seen = self.fake.path("/seen")
        seen.unlink(missing_ok=True)
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "TMPDIR": str(self.fake.root.parent),
            "KERNEL_INSTALL_CONF_ROOT": str(self.fake.path("/etc/kernel")),
            "KERNEL_INSTALL_PLUGINS": f"{PLUGIN} {self.witness} {plugins}",
            "BOOT_ROOT": str(self.boot),
            **({"MACHINE_ID": machine_id} if machine_id else {}),
            "TINYKDUMP_PYTHON": python or str(self.python),
            "TINYKDUMP_ROOT": str(self.fake.root),
            "WITNESS": str(seen),
        }
        done = subprocess.run(["kernel-install", *words], env=environment, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert seen.exists(), f"the plugin after ours did not run: {done.stderr}"
        assert seen.read_text() == "", "something is in the staging area of the normal boot"
        return done.returncode, (done.stdout + done.stderr).splitlines()

    def modes(self) -> dict[str, str]:
        """The files of the kernel's state, with their modes."""
        return {name: oct(mode) for name, (mode, _) in self.fake.snapshot(STATE).items()}


def test_add_and_remove(kernel_install: KernelInstall) -> None:
    status, said = kernel_install("add", KVER, kernel_install.kernel)
    assert status == 0
    image = kernel_install.fake.image()
    assert kernel_install.modes() == dict.fromkeys(
        (image.name, "manifest.json", "modules.json"), "0o100600"
    )
    manifest = json.loads(kernel_install.fake.path(f"{STATE}/manifest.json").read_text())
    assert manifest["kver"] == KVER
    assert sorted(manifest["modules"]) == sorted(NAMES)
    assert hashlib.sha256(image.read_bytes()).hexdigest() == manifest["sha256"]
    size = image.stat().st_size
    assert said == [
        f"tinykdump: built the crash image of {KVER}: {size} bytes, {len(NAMES)} modules",
        "tinykdump: not loaded: this is not the running system",
    ]

    before = kernel_install.fake.snapshot()
    status, said = kernel_install("add", KVER, kernel_install.kernel)
    assert (status, said[0][:15]) == (0, "tinykdump: kept")
    assert kernel_install.fake.snapshot() == before

    assert kernel_install("remove", KVER) == (0, [])
    assert not kernel_install.fake.path(STATE).exists()
    assert kernel_install.fake.path("/var/lib/tinykdump/keys").is_dir()


def test_in_an_image_of_a_system_no_key_is_made(kernel_install: KernelInstall) -> None:
    """It would be the key of every machine that gets the image."""
    kernel_install.fake.remove(str(keys.MACHINE_KEYS))
    status, (line,) = kernel_install("add", KVER, kernel_install.kernel)
    assert status == 0
    assert line == (
        f"tinykdump: add {KVER}: this machine has no key yet "
        "(on the running system, tinykdump -b makes it, and tinykdump.service at boot)"
    )
    assert kernel_install.fake.snapshot() == {}


@pytest.mark.slow
@pytest.mark.parametrize("machine_id", [MACHINE_ID, ""], ids=["machine-id", "none"])
@pytest.mark.parametrize("layout", ["bls", "uki", "other"])
def test_add_and_remove_work_with_every_layout(
    kernel_install: KernelInstall, layout: str, machine_id: str
) -> None:
    """The plugin writes nothing to /boot, which may be read-only or not mounted."""
    fake = kernel_install.fake
    fake.write("/etc/kernel/install.conf", f"layout={layout}\n")
    if not machine_id:
        fake.remove("/etc/machine-id")
    boot = fake.snapshot("/boot")
    status, _ = kernel_install("add", KVER, kernel_install.kernel, machine_id=machine_id)
    assert status == 0
    assert set(kernel_install.modes()) == {
        fake.image().name, "manifest.json", "modules.json"
    }  # fmt: skip
    assert {name: what for name, what in fake.snapshot("/boot").items() if what[1]} == {
        name: what for name, what in boot.items() if what[1]
    }
    assert kernel_install("remove", KVER, machine_id=machine_id) == (0, [])
    assert not fake.path(STATE).exists()


@pytest.fixture
def self_built(kernel_install: KernelInstall) -> KernelInstall:
    """A machine with a kernel image that is not beside the modules."""
    fake = kernel_install.fake
    fake.remove(f"/lib/modules/{KVER}/vmlinuz")
    # kernel-install gets paths of this machine; this link makes them valid in the tree, too.
    fake.link(str(fake.root), "/")
    fake.write("/etc/kernel/install.conf", "layout=bls\n")
    return kernel_install


def rebuilt(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> str:
    """Rebuild without a path, as at boot; returns the path of the kernel image."""
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    assert cli.main(["-b"]) == 0
    return str(json.loads(fake.path(f"{STATE}/manifest.json").read_text())["kernel"])


@pytest.mark.slow
@pytest.mark.parametrize("boot", ["/boot", "/efi", "/boot/efi"])
def test_a_self_built_kernel_is_found_where_kernel_install_copied_it(
    self_built: KernelInstall, monkeypatch: pytest.MonkeyPatch, boot: str
) -> None:
    """90-loaderentry has copied it there from a build directory, which is gone."""
    fake = self_built.fake
    fake.path(boot).mkdir(exist_ok=True)
    monkeypatch.setattr(self_built, "boot", fake.path(boot))
    given = fake.write("/home/me/linux/arch/x86/boot/bzImage", bzimage(release=KVER))
    status, _ = self_built("add", KVER, given, plugins=LOADER_ENTRY)
    assert status == 0
    fake.remove("/home/me/linux")
    assert rebuilt(fake, monkeypatch) == f"{boot}/{MACHINE_ID}/{KVER}/linux"


@pytest.mark.slow
@pytest.mark.parametrize("now", [KVER, "9.9", ""])
def test_the_path_of_the_kernel_image_is_remembered(
    self_built: KernelInstall, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], now: str,
) -> None:  # fmt: skip
    """A kernel of another version at that path is refused."""
    fake = self_built.fake
    given = fake.write("/home/me/bzImage", bzimage(release=KVER))
    assert self_built("add", KVER, given)[0] == 0
    if now == KVER:
        assert rebuilt(fake, monkeypatch) == str(given)
        return
    fake.write("/home/me/bzImage", bzimage(release=now) if now else b"")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    assert cli.main(["-b"]) == 1
    why = f"kernel {now}, not {KVER}" if now else "not a bzImage or Image and contains none"
    said = capfd.readouterr().err
    assert said.startswith(f"tinykdump: {given} is {why} (install that kernel")


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False], ids=["on the boot partition", "nowhere"])
def test_the_kernel_in_a_unified_image_is_stored(
    self_built: KernelInstall, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    fake = self_built.fake
    inner = bzimage(release=KVER) + b"code"
    given = fake.write(f"/boot/EFI/Linux/{MACHINE_ID}-{KVER}+3.efi",
                       unified(osrel=b"ID=x", linux=inner, initrd=b"0707"))  # fmt: skip
    assert self_built("add", KVER, given)[0] == 0
    kernel = json.loads(fake.path(f"{STATE}/manifest.json").read_text())["kernel"]
    assert fake.path(kernel).parent == fake.path(STATE)
    assert fake.path(kernel).read_bytes() == inner
    before = fake.snapshot()
    if not kept:
        given.unlink()
    assert rebuilt(fake, monkeypatch) == kernel
    assert fake.snapshot() == before

    given.unlink(missing_ok=True)
    fake.write(str(given.relative_to(fake.root)), unified(linux=inner + b"new"))
    assert rebuilt(fake, monkeypatch) != kernel
    assert not fake.path(kernel).exists()


@pytest.mark.slow
def test_a_kernel_that_its_package_has_only_in_a_unified_image(
    self_built: KernelInstall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kernel-uki-virt of Fedora; found at boot also if no kernel-install has named it."""
    inner = bzimage(release=KVER) + b"code"
    self_built.fake.write(f"/lib/modules/{KVER}/vmlinuz-virt.efi", unified(linux=inner))
    kernel = rebuilt(self_built.fake, monkeypatch)
    assert self_built.fake.path(kernel).read_bytes() == inner


@pytest.mark.slow
def test_a_stored_kernel_that_is_damaged_is_stored_again(self_built: KernelInstall) -> None:
    fake = self_built.fake
    given = fake.write("/boot/uki.efi", unified(linux=bzimage(release=KVER)))
    self_built("add", KVER, given)
    before = fake.snapshot()
    kernel = json.loads(fake.path(f"{STATE}/manifest.json").read_text())["kernel"]
    fake.write(kernel, fake.path(kernel).read_bytes()[:-1], 0o600)
    _, said = self_built("add", KVER, given)
    assert said[0].startswith("tinykdump: built")
    assert fake.snapshot() == before


def test_a_unified_image_without_a_kernel_is_an_error(self_built: KernelInstall) -> None:
    given = self_built.fake.write("/boot/linux.efi", unified(osrel=b"ID=x"))
    _, said = self_built("add", KVER, given)
    assert said == [
        f"tinykdump: add {KVER}: {given} is not a bzImage or Image and contains none (install "
        "that kernel, or run kernel-install add KVER IMAGE)"
    ]


@pytest.mark.slow
def test_the_kernel_image_beside_the_modules_is_preferred_to_a_unified_one(
    kernel_install: KernelInstall,
) -> None:
    """kexec loads the kernel image beside the modules, which packages install."""
    fake = kernel_install.fake
    unified = fake.write("/boot/linux.efi", b"MZ" + bytes(0x1000))
    status, _ = kernel_install("add", KVER, unified)
    assert status == 0
    manifest = json.loads(fake.path(f"{STATE}/manifest.json").read_text())
    assert manifest["kernel"] == f"/lib/modules/{KVER}/vmlinuz"


@pytest.mark.parametrize(
    ("removed", "other"),
    [
        ("type1", f"/lib/modules/{KVER}/vmlinuz-virt.efi"),
        ("type2", f"/lib/modules/{KVER}/vmlinuz"),
    ],
)
def test_removing_one_type_of_boot_entry_keeps_the_image(
    kernel_install: KernelInstall, monkeypatch: pytest.MonkeyPatch, removed: str, other: str
) -> None:
    """As long as the package for the other type is installed, whether the modules are or not. The
    plugin is called as kernel-install calls it.
    """
    fake = kernel_install.fake
    fake.write(f"{STATE}/initramfs.img", b"old")
    fake.write(other, b"kernel")
    monkeypatch.setenv("KERNEL_INSTALL_BOOT_ENTRY_TYPE", removed)
    monkeypatch.setenv("TINYKDUMP_PYTHON", str(kernel_install.python))
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    subprocess.run([PLUGIN, "remove", KVER, "/entry"], check=True)
    assert fake.path(STATE).exists()
    fake.remove(other)
    subprocess.run([PLUGIN, "remove", KVER, "/entry"], check=True)
    assert not fake.path(STATE).exists()


def test_remove_keeps_the_images_of_other_kernels(kernel_install: KernelInstall) -> None:
    """If those kernels are installed."""
    other = "/var/lib/tinykdump/images/6.2.0/initramfs.img"
    kernel_install.fake.write(other, b"x")
    kernel_install.fake.write("/lib/modules/6.2.0/modules.builtin", "")
    assert kernel_install("remove", KVER) == (0, [])
    assert kernel_install.fake.path(other).read_bytes() == b"x"


def test_a_failed_build_is_reported_and_changes_nothing(kernel_install: KernelInstall) -> None:
    fake = kernel_install.fake
    fake.write(f"{STATE}/initramfs.img", b"old")
    fake.remove("/usr/bin/makedumpfile")
    fake.write("/etc/default/tinykdump", "[dump]\nencrypt = no\n")
    before = fake.snapshot()
    status, said = kernel_install("add", KVER, kernel_install.kernel)
    assert (status, said) == (0, [
        f"tinykdump: add {KVER}: makedumpfile is not installed (install makedumpfile)",
    ])  # fmt: skip
    assert fake.snapshot() == before
    assert list(fake.path("/run/tinykdump").iterdir()) == [fake.path("/run/tinykdump/lock")]


def test_remove_works_with_an_invalid_configuration(kernel_install: KernelInstall) -> None:
    kernel_install.fake.write(f"{STATE}/initramfs.img", b"old")
    kernel_install.fake.write("/etc/default/tinykdump", "[dump]\nwiat = 3\n")
    status, _ = kernel_install("remove", KVER)
    assert status == 0
    assert not kernel_install.fake.path(STATE).exists()


@pytest.mark.parametrize("python", ["/nonexistent", "/bin/false"])
def test_a_python_that_does_not_start_is_reported(
    kernel_install: KernelInstall, python: str
) -> None:
    status, said = kernel_install("add", KVER, kernel_install.kernel, python=python)
    assert status == 0
    assert said[-1] == "tinykdump: the plugin failed; run tinykdump -l to see why"


@pytest.mark.parametrize("words", [[], ["inspect"], ["frobnicate", KVER], ["add"]])
def test_other_verbs_do_nothing(kernel_install: KernelInstall, words: list[str]) -> None:
    before = kernel_install.fake.snapshot("/")
    environment = {"TINYKDUMP_PYTHON": str(kernel_install.python),
                   "TINYKDUMP_ROOT": str(kernel_install.fake.root)}  # fmt: skip
    done = subprocess.run([PLUGIN, *words], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert kernel_install.fake.snapshot("/") == before
