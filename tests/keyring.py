# SPDX-License-Identifier: GPL-2.0-or-later
"""Real OpenPGP keys: valid, expired, revoked and sign-only."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# The expired key was made at this time, and was valid for one day. The clock stands still.
_LONG_AGO = "20200101T000000!"


@dataclass(frozen=True)
class Keyring:
    """A GnuPG home with secret keys; the user ID of a key says what it is for."""

    home: Path

    def gpg(self, *words: str, stdin: bytes = b"") -> bytes:
        """Run gpg on it; returns the standard output."""
        assert shutil.which("gpg"), "gpg is not installed (run tools/deps)"
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--yes",
                "--pinentry-mode", "loopback", "--passphrase", "", *words]  # fmt: skip
        done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def make(self, user: str, *kind: str, options: tuple[str, ...] = ()) -> None:
        """Make a key without a passphrase; ``kind`` is algorithm, usage and expiry."""
        self.gpg(
            *options, "--quick-gen-key", user, *(kind or ("future-default", "default", "never"))
        )

    def public(self, *users: str) -> bytes:
        """The exported public keys of those users."""
        return self.gpg("--export", *users)

    def fingerprint(self, user: str) -> str:
        """The primary key's fingerprint."""
        lines = self.gpg("--with-colons", "--list-keys", user).decode().splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr:"))

    def revoke(self, user: str) -> None:
        """Revoke a key with the certificate that gpg made with it."""
        certificate = self.home / "openpgp-revocs.d" / f"{self.fingerprint(user)}.rev"
        # A colon before its first line prevents an import by accident.
        self.gpg("--import", stdin=certificate.read_bytes().replace(b"\n:---", b"\n---"))

    def close(self) -> None:
        """End the agent that was started to make keys."""
        subprocess.run(["gpgconf", "--homedir", self.home, "--kill", "all"], check=False)


def make(home: Path) -> Keyring:
    """A keyring with the keys good, other, expired, revoked and sign-only (NAME@example.org)."""
    home.mkdir(mode=0o700)
    keyring = Keyring(home)
    keyring.make("good@example.org")
    keyring.make("other@example.org")
    keyring.make("expired@example.org", "future-default", "default", "1d",
                 options=("--faked-system-time", _LONG_AGO))  # fmt: skip
    keyring.make("sign-only@example.org", "ed25519", "sign", "never")
    keyring.make("revoked@example.org")
    keyring.revoke("revoked@example.org")
    return keyring
