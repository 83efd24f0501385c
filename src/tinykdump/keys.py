# SPDX-License-Identifier: GPL-2.0-or-later
"""OpenPGP keys: find the key that dumps are encrypted to, and check it."""

import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tinykdump.clock import local, shown
from tinykdump.errors import TinykdumpError
from tinykdump.files import private, sync_directory, sync_tree
from tinykdump.host import Host
from tinykdump.keyring import ending, gpg, imported, looking, open_home, secret_key_ids
from tinykdump.run import run

if TYPE_CHECKING:
    import gnupg

MACHINE_KEYS = Path("/var/lib/tinykdump/keys")
ROOT_KEYS = Path("/root/.gnupg")
MACHINE_USER = "tinykdump"
_MAKING = "making"  # a file in the home while a key is made

EXTEND = "extend it with gpg --quick-set-expire and export it again, or name another key"

# libgcrypt reads this file, too. In FIPS mode it refuses Curve25519, so that gpg shows such keys
# as invalid. 22 is EdDSA (RFC 9580, 9.1).
_FIPS = Path("/proc/sys/crypto/fips_enabled")
_REFUSED_IN_FIPS_MODE = ("22",)

# What a machine's key is made of, in parameters of gpg's unattended key generation. In FIPS mode
# gpg up to 2.4 takes none of its own preferences, because 3DES is among them; a key without any
# means 3DES.
_CURVE25519 = {"key_type": "EDDSA", "key_curve": "ed25519", "subkey_curve": "cv25519"}
_NIST = {"key_type": "ECDSA", "key_curve": "nistp256", "subkey_curve": "nistp256",
         "preferences": "AES256 AES192 AES SHA512 SHA384 SHA256 Uncompressed"}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """A public key that dumps can be encrypted to."""

    fingerprint: str
    public: bytes  # the exported public key, the only part that goes into an image
    valid_at: str  # a time at which it was valid, for gpg --faked-system-time
    expires: int = 0  # when it cannot encrypt any more, in seconds since 1970; 0: never


def homes(host: Host) -> tuple[Path, ...]:
    """The GnuPG directories that may hold the secret key of a dump: the machine's, the caller's.

    The machine's is for root only.
    """
    own = Path(os.environ.get("GNUPGHOME") or "~/.gnupg").expanduser()
    machine = host.path(MACHINE_KEYS)
    there = tuple(home for home in (machine, own) if os.access(home, os.R_OK | os.X_OK))
    return there or (own,)


@contextmanager
def ending_agent(host: Host) -> Iterator[None]:
    """End the agent of the machine's key with the block: it needs no passphrase to be remembered.

    Raises TinykdumpError.
    """
    home = host.path(MACHINE_KEYS)
    with ending(home) if os.access(home, os.R_OK | os.X_OK) else nullcontext():
        yield


def configured(key: str, host: Host) -> Key:
    """The key that ``key`` names: a file by its absolute path, or a key in root's keyring.

    Raises TinykdumpError if it is missing, cannot encrypt now, or if users other than root can
    write it.
    """
    if key.startswith("/"):
        host.vouch(key)
        return from_file(host.read(key), key, fips=in_fips_mode(host))
    exported = b""
    if ROOT_KEYS.is_dir():
        with looking(ROOT_KEYS) as keyring:
            exported = keyring.export_keys(key, armor=False, minimal=True)
    if not exported:
        raise TinykdumpError(
            f"key {key} is not in root's keyring",
            "import it with gpg --import as root, or name a file by a path with a /",
        )
    return from_file(exported, key, fips=in_fips_mode(host))


def in_fips_mode(host: Host) -> bool:
    """Whether libgcrypt refuses what FIPS 140 does not name."""
    return host.text(_FIPS) == "1"


def from_file(content: bytes, name: str, *, fips: bool = False) -> Key:
    """The one key in exported ``content``, checked; ``name`` is for messages.

    ``fips``: this machine is in FIPS mode. Raises TinykdumpError.
    """
    with imported(content) as keyring:
        found = _listed(keyring, f"key {name}")
        if len(found) != 1:
            hint = "export exactly one public key with gpg --export"
            if fips and not found:
                hint += "; in FIPS mode it must be RSA or of a NIST curve, such as nistp256"
            raise TinykdumpError(f"key {name} contains {len(found) or 'no'} OpenPGP keys", hint)
        check(found[0], name)
        return _export(keyring, found[0])


def check(listed: Mapping[str, Any], name: str) -> None:
    """Check that a key, as python-gnupg lists it, can encrypt now. Raises TinykdumpError if not.

    The letters are those of ``gpg --with-colons`` (doc/DETAILS in GnuPG): field 2 is r
    (revoked) or e (expired); a capital E in field 12 means that a subkey can encrypt.
    """
    if listed["trust"] == "r":
        raise TinykdumpError(f"key {name} is revoked", "name another key")
    if expired := _expired(listed):
        raise TinykdumpError(f"key {name} expired {shown(local(expired))}", EXTEND)
    if "E" not in listed["cap"] or "D" in listed["cap"]:
        raise TinykdumpError(
            f"key {name} cannot encrypt", "name a key that has a valid subkey for encryption"
        )


def _expired(listed: Mapping[str, Any]) -> int:
    """When a key expired, or the last of its subkeys that encrypted; 0: it did not."""
    if listed["trust"] == "e":
        return int(listed["expires"])
    if "E" in listed["cap"]:
        return 0
    subkeys = listed.get("subkey_info", {}).values()
    return max((int(each["expires"]) for each in subkeys
                if "e" in each["cap"] and each["trust"] == "e"), default=0)  # fmt: skip


def of_config(host: Host, key: str) -> Key:
    """The key that dumps are encrypted to: the one that ``key`` names, else the machine's own.

    Raises TinykdumpError.
    """
    return configured(key, host) if key else machine_key(host, create=False)


def armored(key: Key) -> str:
    """A public key as text, to send or to copy. Raises TinykdumpError."""
    with imported(key.public) as keyring:
        return str(keyring.export_keys(key.fingerprint))


def secret_home(key: Key, homes: Sequence[Path]) -> Path | None:
    """The first of these home directories that has a secret part of a key; None: none has.

    Raises TinykdumpError.
    """
    with imported(key.public) as keyring:
        (listed,) = _listed(keyring, key.fingerprint)
    ids = {listed["keyid"], *(subkey[0] for subkey in listed["subkeys"])}
    return next((home for home in homes if ids & secret_key_ids(home)), None)


def secret(home: Path, fingerprint: str) -> str:
    """The secret key as text. gpg asks for its passphrase if it has one. Raises TinykdumpError."""
    with ending(home):
        exported = gpg(home).export_keys(fingerprint, secret=True, expect_passphrase=False)
    if "PRIVATE KEY BLOCK" not in exported:
        raise TinykdumpError(
            f"gpg cannot export the secret key {fingerprint}",
            f"see gpg --homedir {home} --list-secret-keys",
        )
    return str(exported)


def machine_key(host: Host, *, create: bool) -> Key:
    """The key of this machine; makes it if there is none and ``create`` is set.

    Its secret part has no passphrase and is readable by root only: root can read the memory of
    this machine anyway. In FIPS mode a key that was made before cannot be used: another one is
    made beside it, and old dumps need the old one. Raises TinykdumpError if there is none.
    """
    home, fips = host.path(MACHINE_KEYS), in_fips_mode(host)
    found, others = _usable_key(home, fips=fips) if home.is_dir() else (None, False)
    if found is None:
        if not create:
            raise TinykdumpError(
                "this machine has no key yet",
                "on the running system, tinykdump -b makes it, and tinykdump.service at boot",
            )
        is_unfinished = home.joinpath(_MAKING).exists()
        if others or is_unfinished or not any(home.glob("private-keys-v1.d/*")):
            _make_machine_key(home, fips=fips)
            found, _ = _usable_key(home, fips=fips)
    if found is None:
        raise TinykdumpError(
            f"gpg cannot find the key that it made in {MACHINE_KEYS}",
            f"see gpg --homedir {MACHINE_KEYS} --list-keys",
        )
    return found


def _usable_key(home: Path, *, fips: bool) -> tuple[Key | None, bool]:
    """The first key in the home that tinykdump made, checked, and whether others are refused."""
    with looking(home) as keyring:
        listed = _listed(keyring, str(MACHINE_KEYS))
        found = [each for each in listed if not (fips and each["algo"] in _REFUSED_IN_FIPS_MODE)]
        if not found:
            return None, bool(listed)
        check(found[0], str(MACHINE_KEYS))
        return _export(keyring, found[0]), len(found) < len(listed)


def _listed(keyring: "gnupg.GPG", name: str) -> Sequence[Mapping[str, Any]]:
    """The keys of a keyring. Raises TinykdumpError if gpg fails: an empty list would let a new key
    replace the machine's."""
    found = keyring.list_keys()
    if found.returncode != 0:
        said = (found.stderr or "").strip().splitlines()
        raise TinykdumpError(
            f"gpg cannot list the keys of {name}: {said[-1] if said else 'no message'}",
            "see gpg --list-keys",
        )
    return cast(Sequence[Mapping[str, Any]], found)


def _make_machine_key(home: Path, *, fips: bool) -> None:
    """Make a key, and write it to the disk. Raises TinykdumpError or OSError.

    gpg writes the secret parts before the public one. If it is ended in between, nothing was
    encrypted to them, and _MAKING says that another key can be made.
    """
    private(home)
    making = home / _MAKING
    making.touch()
    sync_directory(home)
    keyring = open_home(home)
    try:
        made = keyring.gen_key(
            keyring.gen_key_input(
                **(_NIST if fips else _CURVE25519),
                key_usage="sign", subkey_type="ECDH", subkey_usage="encrypt",
                name_real=MACHINE_USER, name_email=f"{MACHINE_USER}@localhost",
                expire_date=0, no_protection=True,
            )
        )  # fmt: skip
    finally:
        run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
    if not made.fingerprint:
        raise TinykdumpError(f"gpg made no key in {home}", f"see gpg --homedir {home} --list-keys")
    # gpg does not: a crash soon after would lose the key that its own dump needs.
    sync_tree(home)
    making.unlink()


def _export(keyring: "gnupg.GPG", listed: Mapping[str, Any]) -> Key:
    fingerprint = listed["fingerprint"]
    public = keyring.export_keys(fingerprint, armor=False, minimal=True)
    if not public:
        raise TinykdumpError(f"gpg cannot export key {fingerprint}", "see gpg --export")
    return Key(fingerprint, public, last_change(public), _expiry(listed))


def _expiry(listed: Mapping[str, Any]) -> int:
    """When a key, as python-gnupg lists it, cannot encrypt any more; 0: never.

    That is when it expires, or the last of its valid subkeys that encrypt (field 7 and the letter e
    in field 12 in doc/DETAILS of GnuPG).
    """
    parts = [
        int(part.get("expires") or 0)
        for part in listed.get("subkey_info", {}).values()
        if "e" in part.get("cap", "") and part.get("trust") not in ("r", "e")
    ]
    if "e" in listed["cap"]:
        parts.append(0)
    last = 0 if 0 in parts else max(parts, default=0)
    return min(filter(None, (last, int(listed.get("expires") or 0))), default=0)


def last_change(public: bytes) -> str:
    """When a public key was last changed: the latest time in its packets (RFC 9580, 5.2 and 5.5).

    Every part of the key that is valid now was valid then. The time is the same for each build.
    """
    with tempfile.TemporaryDirectory(prefix="tinykdump-") as home:
        listed = run(
            ["gpg", "--homedir", home, "--batch", "--no-autostart", "--list-packets"], stdin=public
        )
    times = [int(time) for time in re.findall(rb"\bcreated ([0-9]{1,10})\b", listed.stdout)]
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime(max(times, default=0)))
