# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said of packages that only some distributions have."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakehost import SOURCE, FakeHost
from tinykdump import cli, distribution

# The lines of /etc/os-release that tell.
RELEASES = {
    "CentOS Stream 10": 'ID="centos"\nID_LIKE="rhel fedora"\n',
    "RHEL 10": 'ID="rhel"\nID_LIKE="centos fedora"\n',
    "Rocky Linux 10": 'ID="rocky"\nID_LIKE="rhel centos fedora"\n',
}
OTHERS = {"Fedora": "ID=fedora\n", "Debian": "ID=debian\n", "no file": ""}
EPEL = "install busybox from EPEL 10.2 or later: dnf install epel-release busybox"


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_what_comes_from_epel(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], release: str
) -> None:
    """RHEL has busybox in none of its repositories."""
    fake.write("/etc/os-release", release)
    fake.write("/etc/default/tinykdump", "[dump]\nencrypt = no\n")
    fake.remove("/usr/bin/busybox")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    assert cli.main(["-b"]) == 1
    assert capfd.readouterr().err == f"tinykdump: busybox is not installed ({EPEL})\n"
    assert distribution.install(fake.host, "makedumpfile") == "install makedumpfile"


@pytest.mark.parametrize("release", OTHERS.values(), ids=OTHERS)
def test_elsewhere_it_is_in_the_distribution(fake: FakeHost, release: str) -> None:
    fake.write("/etc/os-release", release)
    assert distribution.install(fake.host, "busybox (or so)") == "install busybox (or so)"


def test_without_python_gnupg_one_line_says_so(tmp_path: Path) -> None:
    """As a program, whose Python finds only what it comes with, and pyelftools."""
    code = (
        f"import sys; sys.path[:] = [{SOURCE!r}, *sys.path]; sys.modules['gnupg'] = None\n"
        "from tinykdump import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  dmesg.txt.gpg.000\n")
    (tmp_path / "dmesg.txt.gpg.000").write_bytes(b"x")
    words = [sys.executable, "-c", code, "restore", str(tmp_path), "--keys", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, check=False, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "python3-gnupg is not installed (install python3-gnupg" in done.stderr
    assert "Traceback" not in done.stderr
