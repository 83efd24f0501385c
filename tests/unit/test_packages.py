# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages that own files, from a real rpm database."""

import subprocess
from pathlib import Path

from tests.fakehost import FakeHost
from tinykdump.host import Host
from tinykdump.image import packages

SPEC = """
Name: owner
Epoch: 3
Version: 1
Release: 2
Summary: Owns a tool
License: GPL
BuildArch: noarch
%description
%install
mkdir -p %{buildroot}/usr/bin
echo tool >%{buildroot}/usr/bin/tool
%files
/usr/bin/tool
"""


def test_without_a_database_no_package_is_recorded(fake: FakeHost) -> None:
    assert packages.owner_lookup(fake.host)("/usr/bin/busybox") == ""


def test_the_package_that_owns_a_file(tmp_path: Path) -> None:
    (tmp_path / "owner.spec").write_text(SPEC)
    build = ["rpmbuild", "--quiet", "-bb", "--define", f"_topdir {tmp_path}", "owner.spec"]
    subprocess.run(build, check=True, cwd=tmp_path, capture_output=True)
    root = tmp_path / "root"
    root.mkdir()
    (package,) = tmp_path.glob("RPMS/noarch/*.rpm")
    install = ["rpm", "--root", str(root), "--nodeps", "--install", str(package)]
    subprocess.run(install, check=True, capture_output=True)

    owner = packages.owner_lookup(Host(root))
    assert owner("/usr/bin/tool") == "owner-3:1-2.noarch"
    assert owner("/usr/bin/other") == ""
