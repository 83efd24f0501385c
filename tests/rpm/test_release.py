# SPDX-License-Identifier: GPL-2.0-or-later
"""The version has one place, and what make release makes of a commit."""

import hashlib
import importlib.metadata
import re
import subprocess
import sys
import tarfile
from datetime import date
from pathlib import Path

import pytest

from tests.rpm import repository
from tests.rpm.repository import git
from tests.test_lint import tracked
from tinykdump import __version__
from tools import release

CHECKOUT = Path(__file__).parents[2]
DAY = date(2027, 1, 5)
CHANGES = (
    "# Changes\n\n## [Unreleased]\n\n### Fixed\n\n- A thing.\n\n## [0.1.0] - 2026-11-22\n\n- A\n"
)


def test_the_version_has_one_place() -> None:
    """What cannot be derived from it says the same, and nothing else names it."""
    spec = (CHECKOUT / "tinykdump.spec").read_text()
    assert re.findall(r"^%global tinykdump_version (.+)$", spec, re.MULTILINE) == [__version__]
    assert re.findall(r"^\* .+ - (.+)-1$", spec, re.MULTILINE)[0] == __version__
    debian = (CHECKOUT / "debian/changelog").read_text()
    assert re.findall(r"^tinykdump \((.+)\) ", debian, re.MULTILINE)[0] == __version__
    changelog = (CHECKOUT / "CHANGELOG.md").read_text()
    assert re.findall(r"^## \[(\d.+)\] - [\d-]+$", changelog, re.MULTILINE)[0] == __version__
    # What pip has built: from src/tinykdump/__init__.py, when .venv was made (tools/deps).
    assert importlib.metadata.version("tinykdump") == __version__
    named = re.compile(rf"tinykdump[ -]v?{re.escape(__version__)}\b")
    assert [
        path for path in tracked("*.py", "*.md", "man/*") if named.search(path.read_text())
    ] == []


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "1.0.0-rc1", "1.0.0\n", "01.0.0", "", "0.1.0",
                                     "0.0.9"])  # fmt: skip
def test_versions_that_are_refused(version: str) -> None:
    with pytest.raises(release.ReleaseError, match=r"set .*VERSION"):
        release.set_version('__version__ = "0.1.0"\n', version)


def test_a_later_version_is_compared_by_its_numbers() -> None:
    assert release.set_version('__version__ = "0.9.0"\n', "0.10.0") == '__version__ = "0.10.0"\n'


def test_what_was_unreleased_gets_version_and_date() -> None:
    assert release.date_changes(CHANGES, "0.2.0", DAY) == (
        "# Changes\n\n## [Unreleased]\n\n## [0.2.0] - 2027-01-05\n\n### Fixed\n\n- A thing.\n\n"
        "## [0.1.0] - 2026-11-22\n\n- A\n"
    )
    with pytest.raises(release.ReleaseError, match="nothing under Unreleased"):
        release.date_changes(CHANGES.replace("- A thing.\n", ""), "0.2.0", DAY)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Of this work tree, with something to tell, by somebody with a name."""
    directory = repository.clone(tmp_path / "clone")
    git(directory, "config", "user.name", "test")
    git(directory, "config", "user.email", "test@localhost")
    # What is in the tarball is not up to whoever makes it.
    git(directory, "config", "tar.umask", "0077")
    changelog = directory / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace(
        "## [Unreleased]\n", "## [Unreleased]\n\n### Added\n\n- Something of this test.\n", 1
    ))  # fmt: skip
    git(directory, "commit", "--quiet", "--all", "--message=tell it")
    return directory


def make(clone: Path, version: str) -> subprocess.CompletedProcess[str]:
    # The target without what it depends on: this directory has its .venv already.
    command = ["make", "--no-print-directory", "release", f"VERSION={version}",
               f"PYTHON={sys.executable}", "--assume-old=deps"]  # fmt: skip
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)


def test_release(clone: Path) -> None:
    """A commit, a tag, and files that are what they are named."""
    before = git(clone, "rev-parse", "HEAD")
    done = make(clone, "9.9.0")
    assert done.returncode == 0, done.stderr
    assert git(clone, "rev-list", f"{before}..v9.9.0") == git(clone, "rev-parse", "HEAD")
    assert git(clone, "diff", "--name-only", before).split() == [
        "CHANGELOG.md", "debian/changelog", "src/tinykdump/__init__.py", "tinykdump.spec",
    ]  # fmt: skip
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "worktree", "list").count("\n") == 0
    text = (clone / "CHANGELOG.md").read_text()
    entry = (clone / "debian/changelog").read_text().splitlines()
    assert entry[0] == "tinykdump (9.9.0) unstable; urgency=medium"
    assert entry[4].startswith(" -- tinykdump maintainers <maintainers@tinykdump.example>  ")
    assert re.search(
        r"## \[Unreleased\]\n\n## \[9\.9\.0\] - 20[\d-]+\n\n### Added\n\n- Someth", text
    )

    made = {path.name: path for path in map(Path, done.stdout.split())}
    names = ["tinykdump-9.9.0-1.noarch.rpm", "tinykdump-9.9.0-1.src.rpm", "tinykdump-9.9.0.tar.gz"]
    assert sorted(made) == ["SHA256SUMS", *names]
    sums = (f"{hashlib.sha256(made[name].read_bytes()).hexdigest()}  {name}\n" for name in names)
    assert made["SHA256SUMS"].read_text() == "".join(sums)
    with tarfile.open(made[names[2]]) as tar:
        members = tar.getmembers()
        code = tar.extractfile("tinykdump-9.9.0/src/tinykdump/__init__.py")
        assert code and b'__version__ = "9.9.0"' in code.read()
    commit_time = int(git(clone, "log", "-1", "--format=%ct"))
    assert {(each.mtime, each.uid, each.gid) for each in members} == {(commit_time, 0, 0)}
    paths = [each.name for each in members if each.isfile()]
    assert paths == sorted(paths)
    assert made[names[2]].read_bytes()[3:8] == bytes(5), "gzip has noted a name or a time"
    queried = ["rpm", "-qp", "--qf=%{version} %{changelogtext}", str(made[names[0]])]
    shown = subprocess.run(queried, capture_output=True, check=True, text=True).stdout
    assert shown == "9.9.0 - See CHANGELOG.md"

    again = make(clone, "9.9.0")
    assert (again.returncode, "exists already" in again.stderr) == (2, True)


def test_builds_that_differ_are_no_release(clone: Path) -> None:
    """Nothing has moved, and the message names the commit to look into."""
    # Instead of real builds, which take seconds.
    (clone / "tools/rpm").write_text(
        '#!/bin/sh\nset -e\ntop=${2#--output=}/RPMS\nmkdir -p "$top"\ndate +%N >"$top/a.rpm"\n'
    )
    git(clone, "commit", "--quiet", "--all", "--message=break it")
    before = git(clone, "rev-parse", "HEAD")
    done = make(clone, "9.9.0")
    assert done.returncode == 2
    assert "release: two builds differ (compare " in done.stderr
    assert git(clone, "rev-parse", "HEAD") == before
    assert git(clone, "tag", "--list") == ""


def test_what_is_not_committed_is_no_release(clone: Path) -> None:
    (clone / "new").touch()
    done = make(clone, "9.9.0")
    assert done.returncode == 2
    assert "release: the work tree has changes (commit or stash them)\n" in done.stderr
    assert git(clone, "tag", "--list") == ""
