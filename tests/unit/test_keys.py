# SPDX-License-Identifier: GPL-2.0-or-later
"""Valid and invalid keys, made by the real gpg."""

import errno
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakehost import FakeHost
from tests.keyring import Keyring
from tinykdump import keyring as keyring_module
from tinykdump import keys as keys_module
from tinykdump import run as run_module
from tinykdump.errors import TinykdumpError
from tinykdump.keys import MACHINE_KEYS, configured, from_file, machine_key
from tinykdump.run import ENVIRONMENT


def test_a_good_key(keys: Keyring) -> None:
    found = from_file(keys.public("good@example.org"), "k")
    assert found.fingerprint == keys.fingerprint("good@example.org")
    # The part that goes into the image is enough for gpg, and public.
    command = ["gpg", "--homedir", str(keys.home), "--list-packets"]
    packets = subprocess.run(command, input=found.public, check=True,
                             capture_output=True).stdout.decode()  # fmt: skip
    assert ":public sub key packet:" in packets
    assert "secret" not in packets


def test_only_the_public_part_of_an_exported_secret_key_is_used(keys: Keyring) -> None:
    found = from_file(keys.gpg("--export-secret-keys", "--armor", "good@example.org"), "k")
    assert found == from_file(keys.public("good@example.org"), "k")


@pytest.mark.parametrize(
    ("users", "says"),
    [
        (["expired"], "key k expired 2020-01-02 00:00:00 UTC (extend it"),
        (["revoked"], "key k is revoked (name another key)"),
        (["sign-only"], "key k cannot encrypt (name a key"),
        (["good", "other"], "key k contains 2 OpenPGP keys (export"),
    ],
)
@pytest.mark.usefixtures("utc")
def test_a_key_that_cannot_be_used(keys: Keyring, users: list[str], says: str) -> None:
    with pytest.raises(TinykdumpError) as caught:
        from_file(keys.public(*(f"{user}@example.org" for user in users)), "k")
    assert str(caught.value).startswith(says)


@pytest.mark.usefixtures("utc")
def test_a_key_whose_subkey_has_expired(short_path: Path) -> None:
    """Its primary key is valid."""
    (short_path / "g").mkdir(mode=0o700)
    ring, long_ago = Keyring(short_path / "g"), ("--faked-system-time", "20200101T000000!")
    ring.make("half@example.org", "ed25519", "sign", "never", options=long_ago)
    ring.gpg(*long_ago, "--quick-add-key", ring.fingerprint("half@example.org"), "cv25519",
             "encrypt", "1d")  # fmt: skip
    ring.close()
    with pytest.raises(TinykdumpError) as caught:
        from_file(ring.public("half@example.org"), "k")
    assert str(caught.value).startswith("key k expired 2020-01-02 00:00:00 UTC (extend it")


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyring]:
    """A valid key that was made with a right clock, while this machine's is years behind."""
    home = tmp_path_factory.mktemp("later") / "home"
    home.mkdir(mode=0o700)
    made = Keyring(home)
    made.make("later@example.org", options=("--faked-system-time", "20560101T000000"))
    yield made
    made.close()


def test_a_key_is_valid_even_if_the_clock_is_behind(later: Keyring) -> None:
    found = from_file(later.public("later@example.org"), "k")
    assert found.fingerprint == later.fingerprint("later@example.org")


def test_the_machines_key_is_valid_even_if_the_clock_is_behind(
    later: Keyring, fake: FakeHost
) -> None:
    later.close()
    shutil.copytree(later.home, fake.path(str(MACHINE_KEYS)),
                    ignore=shutil.ignore_patterns("S.*"))  # fmt: skip
    found = machine_key(fake.host, create=False)
    assert found.fingerprint == later.fingerprint("later@example.org")


@pytest.mark.parametrize("content", [b"", b"not a key", b"\x99" * 100])
def test_a_file_without_a_key(content: bytes) -> None:
    with pytest.raises(TinykdumpError, match="key k contains no OpenPGP keys"):
        from_file(content, "k")


def test_the_path_of_a_key_is_looked_up_on_the_host(keys: Keyring, fake: FakeHost) -> None:
    fake.write("/root/k.asc", keys.public("good@example.org"))
    expected = keys.fingerprint("good@example.org")
    assert configured("/root/k.asc", fake.host).fingerprint == expected
    with pytest.raises(TinykdumpError, match=r"^/root/none: No such file"):
        configured("/root/none", fake.host)


@pytest.mark.parametrize("name", ["nobody@example.org", "relative.asc"])
def test_a_key_that_is_not_in_the_keyring(
    keys: Keyring, fake: FakeHost, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(fake.root)
    # A file of that name exists, but is not meant.
    Path("relative.asc").write_bytes(keys.public("good@example.org"))
    for home in (keys.home, Path("/nonexistent")):
        monkeypatch.setattr(keys_module, "ROOT_KEYS", home)
        with pytest.raises(TinykdumpError, match=f"key {name} is not in root's keyring"):
            configured(name, fake.host)


def test_a_key_in_roots_keyring(
    keys: Keyring, fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "ROOT_KEYS", keys.home)
    expected = keys.fingerprint("good@example.org")
    assert configured("good@example.org", fake.host).fingerprint == expected
    with pytest.raises(TinykdumpError, match=r"key example\.org contains 5 OpenPGP keys"):
        configured("example.org", fake.host)


def test_the_machines_key_is_made_once(fake: FakeHost) -> None:
    with pytest.raises(
        TinykdumpError, match=r"this machine has no key yet \(on the running system"
    ):
        machine_key(fake.host, create=False)
    assert not fake.path(str(MACHINE_KEYS)).exists()

    made = machine_key(fake.host, create=True)
    home = fake.path(str(MACHINE_KEYS))
    before = fake.snapshot(str(MACHINE_KEYS))
    assert home.stat().st_mode & 0o777 == 0o700
    assert machine_key(fake.host, create=True) == machine_key(fake.host, create=False) == made
    assert fake.snapshot(str(MACHINE_KEYS)) == before
    assert not list(home.glob("S.*")), "an agent was left behind"

    # root can decrypt with it without a passphrase.
    (home.parent / "key").write_bytes(made.public)
    secret = subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--trust-model", "always", "--recipient-file",
         home.parent / "key", "--encrypt"], input=b"dump", capture_output=True, check=True,
    ).stdout  # fmt: skip
    try:
        plain = subprocess.run(["gpg", "--homedir", home, "--batch", "--decrypt"], input=secret,
                               capture_output=True, check=True).stdout  # fmt: skip
        assert plain == b"dump"
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


@pytest.fixture
def fips(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A machine in FIPS mode: the kernel says so, and the real libgcrypt is made to believe it.

    Elsewhere libgcrypt would read the same file of /proc; tests/vm/test_host.py has a kernel that
    is in FIPS mode.
    """
    fake.write("/proc/sys/crypto/fips_enabled", "1\n")
    forced = {**ENVIRONMENT, "LIBGCRYPT_FORCE_FIPS_MODE": "1"}
    for module in (keyring_module, run_module):
        monkeypatch.setattr(module, "ENVIRONMENT", forced)
    monkeypatch.setenv("LIBGCRYPT_FORCE_FIPS_MODE", "1")
    return fake


def test_a_new_key_is_on_the_disk(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a crash soon after would lose the key of its own dump."""
    synced: set[int] = set()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    machine_key(fake.host, create=True)
    home = fake.path(str(MACHINE_KEYS))
    written = [home, *(home / "private-keys-v1.d").iterdir(), home / "pubring.kbx"]
    assert {path.stat().st_ino for path in written} <= synced


def test_a_key_that_was_not_finished_is_made_again(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secret parts without a public one, as gpg leaves them when it is killed or the disk is
    full."""
    home = fake.path(str(MACHINE_KEYS))

    def interrupted(_: Path) -> None:
        (home / "pubring.kbx").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keys_module, "sync_tree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            machine_key(fake.host, create=True)
    assert len(list(home.glob("private-keys-v1.d/*"))) == 2
    with pytest.raises(TinykdumpError, match="this machine has no key yet"):
        machine_key(fake.host, create=False)
    assert decrypts(home, machine_key(fake.host, create=True))
    (home / "pubring.kbx").unlink()
    with pytest.raises(TinykdumpError, match="gpg cannot find the key that it made"):
        machine_key(fake.host, create=True)


def curves(home: Path) -> list[str]:
    """The curve of each key and subkey."""
    lines = Keyring(home).gpg("--no-autostart", "--with-colons", "--list-keys").decode().split("\n")
    return [line.split(":")[16] for line in lines if line.startswith(("pub:", "sub:"))]


def decrypts(home: Path, key: keys_module.Key) -> bool:
    """Whether what is encrypted to the public key can be decrypted with that home."""
    (home.parent / "key").write_bytes(key.public)
    words = ["--trust-model", "always", "--recipient-file", str(home.parent / "key"), "--encrypt"]
    secret = Keyring(home).gpg("--no-keyring", *words, stdin=b"dump")
    try:
        return Keyring(home).gpg("--decrypt", stdin=secret) == b"dump"
    finally:
        Keyring(home).close()


def test_in_fips_mode_the_key_of_the_machine_has_a_nist_curve(fips: FakeHost) -> None:
    made = machine_key(fips.host, create=True)
    home = fips.path(str(MACHINE_KEYS))
    assert machine_key(fips.host, create=True) == made
    assert curves(home) == ["nistp256", "nistp256"]
    assert decrypts(home, made)


def test_fips_mode_that_is_turned_on_later_gets_a_key_of_its_own(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The old key stays: old dumps need it."""
    old = machine_key(fake.host, create=True)
    request.getfixturevalue("fips")
    with pytest.raises(TinykdumpError, match=r"^this machine has no key yet"):
        machine_key(fake.host, create=False)
    new = machine_key(fake.host, create=True)
    assert machine_key(fake.host, create=True) == new != old
    assert decrypts(fake.path(str(MACHINE_KEYS)), new)
    monkeypatch.undo()
    fake.write("/proc/sys/crypto/fips_enabled", "0\n")
    assert machine_key(fake.host, create=False) == old
    assert curves(fake.path(str(MACHINE_KEYS))) == ["ed25519", "cv25519", "nistp256", "nistp256"]


def test_in_fips_mode_a_key_that_libgcrypt_refuses(keys: Keyring, fips: FakeHost) -> None:
    fips.write("/root/k.asc", keys.public("good@example.org"))
    with pytest.raises(TinykdumpError, match=r"contains no OpenPGP keys \(.*in FIPS mode it must"):
        configured("/root/k.asc", fips.host)


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TinykdumpError, match=f"{tmp_path}/none is not a directory"):
        keyring_module.gpg(tmp_path / "none")


def test_the_time_of_a_key_is_its_last_change(keys: Keyring) -> None:
    """It is not the time of the build, so that two builds give the same image."""
    keys.make("expiring@example.org", "future-default", "default", "1d")
    found = from_file(keys.public("expiring@example.org"), "key")
    keys.gpg("--quick-set-expire", found.fingerprint, "2d")
    later = from_file(keys.public("expiring@example.org"), "key")
    assert re.fullmatch(r"20[0-9]{6}T[0-9]{6}", found.valid_at)
    assert later.valid_at >= found.valid_at
    assert from_file(keys.public("expiring@example.org"), "key") == later


def uses_keyboxd(home: Path) -> bool:
    """Whether gpg keeps this home's public keys in keyboxd, as GnuPG 2.4 and later can."""
    said = subprocess.run(["gpg", "--homedir", home, "--batch", "--gpgconf-list"],
                          capture_output=True, check=False).stdout  # fmt: skip
    return b"use_keyboxd:16:1:" in said.splitlines()


@pytest.fixture
def keyboxd_home(keys: Keyring, short_path: Path) -> Iterator[Path]:
    """A keyring as Fedora makes them, with one key; keyboxd does not run."""
    home = short_path / "gnupg"
    home.mkdir(mode=0o700)
    (home / "common.conf").write_text("use-keyboxd\n")
    if not uses_keyboxd(home):
        pytest.skip("this gpg has no keyboxd (GnuPG 2.4 has)")
    Keyring(home).gpg("--import", stdin=keys.public("good@example.org"))
    Keyring(home).close()
    yield home
    Keyring(home).close()


def test_a_key_in_roots_keyring_with_keyboxd(
    keys: Keyring, keyboxd_home: Path, fake: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "ROOT_KEYS", keyboxd_home)
    expected = keys.fingerprint("good@example.org")
    assert configured("good@example.org", fake.host).fingerprint == expected
    assert not list(keyboxd_home.glob("S.*")), "a daemon was left behind"

    subprocess.run(["gpgconf", "--homedir", keyboxd_home, "--launch", "keyboxd"], check=True)
    assert configured("good@example.org", fake.host).fingerprint == expected
    assert list(keyboxd_home.glob("S.keyboxd")), "a daemon that ran before was ended"


def test_the_machines_key_with_keyboxd(fake: FakeHost, keyboxd_home: Path) -> None:
    home = fake.path(str(MACHINE_KEYS))
    home.mkdir(mode=0o700, parents=True)
    shutil.copy(keyboxd_home / "common.conf", home)
    made = machine_key(fake.host, create=True)
    assert machine_key(fake.host, create=True) == made
    assert not list(home.glob("S.*")), "a daemon was left behind"


# A gpg that lists no keys, with status 0 or an error.
FAILING_GPG = """#!/bin/sh
case "$*" in
*--list-keys*) exit {status} ;;
esac
exec {gpg} "$@"
"""


@pytest.mark.parametrize(
    ("status", "says"), [(0, "cannot find the key that it made"), (2, "cannot list the keys")]
)
def test_a_key_that_gpg_does_not_list(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, status: int, says: str
) -> None:
    script = fake.write("/bad/gpg", FAILING_GPG.format(gpg=shutil.which("gpg"), status=status),
                        0o755)  # fmt: skip
    path = f"{script.parent}:{ENVIRONMENT['PATH']}"
    monkeypatch.setattr(keyring_module, "ENVIRONMENT", {**ENVIRONMENT, "PATH": path})
    monkeypatch.setenv("PATH", path)
    for _ in range(2):
        with pytest.raises(TinykdumpError, match=f"^gpg {says}"):
            machine_key(fake.host, create=True)
    made = list(fake.path(str(MACHINE_KEYS)).glob("private-keys-v1.d/*"))
    assert len(made) == 2, "each try made another key"


def test_a_terminal_that_has_no_name_here(keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose terminal was opened outside (ttyname(3), ENODEV)."""

    def nameless(_: int) -> str:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr("os.isatty", lambda _: True)
    monkeypatch.setattr("os.ttyname", nameless)
    assert keyring_module.gpg(keys.home).list_keys(secret=True)


def test_the_pipes_of_gpg_are_wide(tmp_path: Path) -> None:
    """So restore need not wait for gpg, nor gpg for it, all the time (make bench)."""
    process = keyring_module.open_home(tmp_path)._open_subprocess(["--version"])
    with process, process.stdin as given, process.stdout as said:
        sizes = {fcntl.fcntl(each, fcntl.F_GETPIPE_SZ) for each in (given, said)}
    assert sizes == {keyring_module.PIPE}
