# SPDX-License-Identifier: GPL-2.0-or-later
"""Secure Boot with a key of the tests, the only one that the firmware trusts, and without a shim.

The firmware verifies the kernel that QEMU hands to it (-kernel), because that is an EFI program.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vmtest import cache
from tests.vmtest.machine import OVMF, Firmware

# OVMF that enforces Secure Boot once keys are enrolled.
CODE = OVMF.code.with_name("OVMF_CODE_4M.secboot.fd")
# The owner of the enrolled certificate: any GUID.
_OWNER = "7d4e4f5a-54a5-4f4b-9d38-0b8d7d9f2c1e"


@dataclass(frozen=True)
class SecureBoot:
    """A kernel with the key's signature and without any, and firmware that trusts the key."""

    directory: Path

    @property
    def signed(self) -> Path:
        return self.directory / "signed"

    @property
    def unsigned(self) -> Path:
        return self.directory / "unsigned"

    @property
    def firmware(self) -> Firmware:
        return Firmware(CODE, self.directory / "variables.fd", secure=True)

    def sign(self, kernel: Path, target: Path) -> None:
        """Write another kernel to ``target``, with the key's signature."""
        subprocess.run(_signing(self.directory, kernel, target), check=True, capture_output=True)


def make(kernel: Path) -> SecureBoot:
    """For that kernel image, which may have another signature; made if it is not in the cache."""
    # The key of the entry has the commands, but not the places of the files.
    names = [str(word) for command in _commands(Path()) for word in command[1:]]
    key = cache.key(kernel, OVMF.variables, names)
    return SecureBoot(cache.entry("secure-boot", key, lambda directory: _make(directory, kernel)))


def _make(directory: Path, kernel: Path) -> None:
    shutil.copy(kernel, directory / "unsigned")
    for command in _commands(directory):
        subprocess.run(command, check=True, capture_output=True)


def _commands(directory: Path) -> Sequence[Sequence[str | Path]]:
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    return (
        ["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650",
         "-subj", "/CN=tinykdump test", "-keyout", key, "-out", certificate],
        [sys.executable, "-m", "virt.firmware.vars", "--input", OVMF.variables,
         "--output", directory / "variables.fd", "--set-pk", _OWNER, certificate,
         "--add-kek", _OWNER, certificate, "--add-db", _OWNER, certificate, "--sb"],
        ["sbattach", "--remove", directory / "unsigned"],
        _signing(directory, directory / "unsigned", directory / "signed"),
    )  # fmt: skip


def _signing(directory: Path, kernel: Path, target: Path) -> Sequence[str | Path]:
    return ["sbsign", "--key", directory / "key.pem", "--cert", directory / "certificate.pem",
            "--output", target, kernel]  # fmt: skip
