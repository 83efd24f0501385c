# SPDX-License-Identifier: GPL-2.0-or-later
"""A secret key with a passphrase: the real gpg-agent asks for it at the user's terminal.

A script takes the place of pinentry(1), which would need a person who types.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dumped import LOG, Dump
from tests.fakehost import SOURCE
from tests.keyring import Keyring

PASSPHRASE = "correct horse"  # noqa: S105 - of a key that exists only during the test

# The server's side of the Assuan protocol, as far as gpg-agent needs it.
PINENTRY = f"""#!/bin/sh
echo "OK ready"
while read -r word rest; do
	echo "$word $rest" >>{{record}}
	case $word in
	GETPIN) env >>{{record}}; echo "D {PASSPHRASE}"; echo OK ;;
	BYE) echo OK; exit ;;
	*) echo OK ;;
	esac
done
"""


class Locked(Keyring):
    """A keyring whose agent does not know the passphrase."""

    @property
    def record(self) -> Path:
        """The file with the commands to pinentry, and its environment."""
        return self.home.parent / "record"


@pytest.fixture
def locked(short_path: Path) -> Iterator[Locked]:
    made = Locked(short_path / "home")
    made.home.mkdir(mode=0o700)
    script = short_path / "pinentry"
    script.write_text(PINENTRY.format(record=made.record))
    script.chmod(0o755)
    (made.home / "gpg-agent.conf").write_text(f"pinentry-program {script}\n")
    subprocess.run(["gpg", "--homedir", made.home, "--batch", "--quiet", "--pinentry-mode",
                    "loopback", "--passphrase", PASSPHRASE, "--quick-gen-key", "good@example.org",
                    "future-default", "default", "never"], check=True)  # fmt: skip
    made.close()
    yield made
    made.close()


def restored(locked: Locked, tmp_path: Path, terminal: bool, **environment: str) -> str:
    """Restore a dump that has only a log, on a terminal or not; returns the terminal's name."""
    dump = Dump(tmp_path / "dump", locked)
    dump.add("dmesg.txt.gpg", LOG)
    locked.close()
    ours, theirs = os.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "tinykdump", "restore", str(dump.path), "--keys",
             str(locked.home), "-o", str(tmp_path / "out")],
            stdin=theirs if terminal else subprocess.DEVNULL, start_new_session=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, **environment},
            check=False, timeout=60,
        )  # fmt: skip
        return os.ttyname(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.slow
def test_the_passphrase_is_asked_for_at_the_terminal(locked: Locked, tmp_path: Path) -> None:
    terminal = restored(locked, tmp_path, True, TERM="vt220")
    assert (tmp_path / "out/vmcore-dmesg.txt").read_bytes() == LOG
    asked = locked.record.read_text().splitlines()
    assert f"OPTION ttyname={terminal}" in asked
    assert "OPTION ttytype=vt220" in asked


@pytest.mark.slow
def test_the_passphrase_is_asked_for_on_the_desktop(locked: Locked, tmp_path: Path) -> None:
    """Without a terminal. A GPG_TTY that is set is kept."""
    desktop = {"DISPLAY": ":7", "WAYLAND_DISPLAY": "wayland-7", "GPG_TTY": "/dev/pts/777",
               "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"}  # fmt: skip
    restored(locked, tmp_path, False, **desktop)
    assert (tmp_path / "out/vmcore-dmesg.txt").read_bytes() == LOG
    asked = locked.record.read_text().splitlines()
    assert "OPTION ttyname=/dev/pts/777" in asked
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"):
        assert f"{name}={desktop[name]}" in asked
