# SPDX-License-Identifier: GPL-2.0-or-later
"""Installs, configures and uses tinykdump in a guest."""

import inspect
import io
import json
import re
import secrets
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gnupg

from tests.vmtest import cache, stick
from tests.vmtest.errors import Result
from tests.vmtest.vm import VM
from tinykdump.dump import TOP, is_complete

REPOSITORY = Path(__file__).parents[2]
CONFIGURATION = "/etc/default/tinykdump"
DROP_IN = "/etc/default/tinykdump.d/test.conf"
KEY = "/etc/tinykdump-test.key"

# The memory of the machine that is ready to crash.
MEMORY_MIB = 1024
# The size of a page of x86-64, in bytes.
PAGE = 4096
# The time limit from a crash to the final action, on a busy host.
CRASH_SECONDS = 400.0

# A line that src/crash/lib.sh logs at the start or at the end of a stage.
_STAGE = re.compile(r"tinykdump: \[([0-9.]+) s\] (.*)")


def archive(*words: str) -> bytes:
    """The files that `make install`, or the target ``words``, installs, as a tar archive."""
    with tempfile.TemporaryDirectory() as directory:
        words = words or ("install",)
        command = ["make", "--no-print-directory", *words, f"DESTDIR={directory}"]
        subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            tar.add(directory, ".", filter=_of_root)
        return content.getvalue()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0  # so that the same files give the same archive
    return member


@dataclass(frozen=True)
class KeyPair:
    """A key whose secret part never enters a guest."""

    home: Path  # its GnuPG directory
    fingerprint: str
    public: bytes


def key_pair(home: Path) -> KeyPair:
    """The key in that directory; makes a new one if the directory is empty."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    gpg = gnupg.GPG(gnupghome=str(home), options=["--no-autostart"])
    if not gpg.list_keys():
        _make_key(home)
    fingerprint = gpg.list_keys()[0]["fingerprint"]
    return KeyPair(home, fingerprint, gpg.export_keys(fingerprint, armor=False))


def cached_key_pair() -> KeyPair:
    """A key that all runs use, so that armed machines can be cached."""
    return key_pair(cache.entry("key", cache.key(inspect.getsource(_make_key)), _make_key))


def _make_key(home: Path) -> None:
    gpg = gnupg.GPG(gnupghome=str(home))
    made = gpg.gen_key(
        gpg.gen_key_input(
            key_type="EDDSA", key_curve="ed25519", key_usage="sign",
            subkey_type="ECDH", subkey_curve="cv25519", subkey_usage="encrypt",
            name_real="tinykdump test", name_email="test@localhost", expire_date=0,
            no_protection=True,
        )
    )  # fmt: skip
    if not made.fingerprint:
        raise RuntimeError(f"gpg made no key: {made.stderr}")
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


def install(vm: VM, *, configuration: str = "", keys: KeyPair | None = None) -> None:
    """Install this checkout in the guest, with the key ``keys`` and a drop-in."""
    vm.put(archive(), "/run/tinykdump-test.tar")
    vm.run(["tar", "--no-overwrite-dir", "-xf", "/run/tinykdump-test.tar", "-C", "/"])
    # depmod has run already, and takes more than a minute in an emulated guest.
    vm.shell("mkdir -p /etc/kernel/install.d; "
             "ln -sf /dev/null /etc/kernel/install.d/50-depmod.install")  # fmt: skip
    if keys:
        vm.put(keys.public, KEY)
        vm.put(f"[dump]\nkey = {KEY}\n".encode(), CONFIGURATION)
    if configuration:
        vm.put(configuration.encode(), DROP_IN)


def install_small(vm: VM, kernel: Path) -> None:
    """Install the small crash kernel of that directory, as kernel-tinykdump-crash does."""
    vm.put(archive("install-crash-kernel", f"CRASH_KERNEL={kernel}"), "/run/small.tar")
    vm.run(["tar", "--no-overwrite-dir", "-xf", "/run/small.tar", "-C", "/"])


def kernel_images(vm: VM, kver: str) -> list[str]:
    """The paths of a kernel's image, which distributions install in one of two places."""
    places = (f"/boot/vmlinuz-{kver}", f"/lib/modules/{kver}/vmlinuz")
    return vm.run(["ls", *places], check=False).text.split()


def kernel_install(vm: VM, verb: str, kver: str) -> Result:
    """Call kernel-install as a package's scriptlet does."""
    image = kernel_images(vm, kver)[:1] if verb == "add" else []
    return vm.run(["kernel-install", verb, kver, *image])


def break_kernel(vm: VM, kver: str) -> None:
    """Put a kernel that kexec refuses, because it cannot be relocated, before the real one.

    Documentation/arch/x86/boot.rst: relocatable_kernel is at 0x234, xloadflags at 0x236.
    """
    name = f"/lib/modules/{kver}/vmlinuz"
    script = (
        "import pathlib; places = map(pathlib.Path, ({name!r}, '/boot/vmlinuz-{kver}'));"
        "data = next(place for place in places if place.exists()).read_bytes();"
        "pathlib.Path({name!r}).write_bytes(data[:0x234] + bytes(4) + data[0x238:])"
    )
    vm.run(["python3", "-c", script.format(name=name, kver=kver)])


def reserved(vm: VM) -> int:
    """The reservation in the guest, in bytes."""
    return int(vm.run(["cat", "/sys/kernel/kexec_crash_size"]).text)


def available(vm: VM) -> int:
    """The memory that is available to programs in the guest, in bytes; empties the caches first.

    With the free pages that each processor has in lists of its own, count: in /proc/zoneinfo.
    MemAvailable leaves them out, and they were 40 MiB on Linux 6.12 after it dropped its caches.
    """
    text = vm.shell("sync; echo 3 >/proc/sys/vm/drop_caches; cat /proc/meminfo /proc/zoneinfo").text
    (kib,) = re.findall(r"^MemAvailable: +(\d+) kB$", text, re.MULTILINE)
    lists = re.findall(r"^ +count: +(\d+)$", text, re.MULTILINE)
    return (int(kib) << 10) + sum(map(int, lists)) * PAGE


def manifest(vm: VM, kver: str) -> dict[str, Any]:
    """The manifest of a kernel's image in the guest."""
    return dict(json.loads(vm.get(f"/var/lib/tinykdump/images/{kver}/manifest.json")))


def mark() -> str:
    """A random name for a process, to recognise a dump by; 15 characters."""
    return f"mark-{secrets.token_hex(5)}"


def crash(vm: VM, name: str) -> None:
    """Crash the guest's kernel from a process of that name; does not wait."""
    script = f"echo {name} >/proc/$$/comm; echo c >/proc/sysrq-trigger"
    vm.start(["/bin/sh", "-c", script])


def reconfigure(vm: VM, text: str) -> None:
    """Arm the machine again, with a drop-in."""
    vm.put(text.encode(), DROP_IN)
    vm.run(["tinykdump", "--load"])


def crash_and_wait(vm: VM) -> str:
    """Crash, and wait for the final action; returns the mark."""
    name = mark()
    crash(vm, name)
    vm.wait_for_reboot(CRASH_SECONDS)
    return name


@dataclass(frozen=True)
class Dump:
    """A dump on a stick."""

    directory: Path  # a copy of the directory on the stick
    complete: bool

    @property
    def size(self) -> int:
        """Its size on the stick, in bytes."""
        return sum(path.stat().st_size for path in self.directory.iterdir())


def dumps(image: stick.Image, target: Path, *, torn: bool = False) -> tuple[Dump, ...]:
    """Copy the files of a stick to ``target``; returns its dumps, the oldest first."""
    stick.extract(image, target, torn=torn)
    found = sorted(target.glob(f"{TOP}/*/*"))
    return tuple(Dump(path, is_complete(path.name)) for path in found)


def restore(dump: Dump, output: Path, keys: Path) -> None:
    """Run `tinykdump restore` on this machine. Raises CalledProcessError."""
    command = [sys.executable, "-m", "tinykdump", "restore", str(dump.directory),
               "--output", str(output), "--keys", str(keys)]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def report(core: Path, *options: str) -> str:
    """`tinykdump report` of a restored vmcore. Raises CalledProcessError."""
    command = [sys.executable, "-m", "tinykdump", "report", str(core), *options]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def stages(console: str) -> dict[str, float]:
    """The stages that src/crash reported on the console: stage -> uptime in seconds."""
    return {text.strip(): float(uptime) for uptime, text in _STAGE.findall(console)}
