# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump in a guest: installed from this checkout, configured, and put to the test."""

import io
import re
import secrets
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import gnupg

from tests.vm.vm import VM

REPOSITORY = Path(__file__).parents[2]
CONFIGURATION = "/etc/default/tinykdump"
KEY = "/etc/tinykdump-test.key"

# What the crash side says at the start and at the end of each stage (src/crash/lib.sh).
_STAGE = re.compile(r"tinykdump: \[([0-9.]+) s\] (.*)")


def archive() -> bytes:
    """What `make install` installs, as a tar archive."""
    with tempfile.TemporaryDirectory() as directory:
        command = ["make", "--no-print-directory", "install", f"DESTDIR={directory}"]
        subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as tar:
            tar.add(directory, ".", filter=_of_root)
        return content.getvalue()


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def install(vm: VM, configuration: str = "") -> None:
    """Install this checkout in the guest; ``configuration`` is for its default file."""
    vm.put(archive(), "/run/tinykdump-test.tar")
    # The guest's own directories keep their modes (-h for /lib, which is a link there).
    vm.run(["tar", "--no-overwrite-dir", "-xf", "/run/tinykdump-test.tar", "-C", "/"])
    if configuration:
        vm.put(configuration.encode(), CONFIGURATION)


@dataclass(frozen=True)
class KeyPair:
    """A key whose secret part never enters a guest."""

    home: Path  # the GnuPG folder that has it
    fingerprint: str
    public: bytes


def key_pair(home: Path) -> KeyPair:
    """A new key in that folder."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    return KeyPair(home, made.fingerprint, gpg.export_keys(made.fingerprint, armor=False))


def mark() -> str:
    """A random name for a process: what a dump is recognised by. At most 15 characters."""
    return f"mark-{secrets.token_hex(5)}"


def crash(vm: VM, name: str) -> None:
    """Bring the guest's kernel down from a process of that name; does not wait."""
    script = f"echo {name} >/proc/$$/comm; echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger"
    vm.start(["/bin/sh", "-c", script])


def stages(console: str) -> dict[str, float]:
    """What the crash kernel reported on the console: stage -> seconds of its uptime."""
    return {text.strip(): float(uptime) for uptime, text in _STAGE.findall(console)}
