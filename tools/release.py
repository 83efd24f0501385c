#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Make a release of the current commit: tools/release.py VERSION (make release VERSION=x.y.z).

Sets the version and dates the changes under Unreleased in CHANGELOG.md, in a new commit. Builds
tarball and packages of that commit twice, in two directories. If both builds are equal, moves the
branch to the commit and tags it. Pushes nothing. Prints the paths of the files, below
build/release/VERSION.
"""

import argparse
import datetime
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]

# The version in the code, and its copies in the spec and in debian/changelog, which are read
# without the code.
VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
SPEC_VERSION = re.compile(r"^(%global tinykdump_version ).+$", re.MULTILINE)
DEBIAN_CHANGES = re.compile(r"\Atinykdump \(.+?\n -- (.+?)  [^\n]+\n", re.DOTALL)
SPEC_CHANGES = re.compile(r"^%changelog\n(?=\* \w+ \w+ \d+ \d+ (.+) - )", re.MULTILINE)
UNRELEASED = re.compile(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


class ReleaseError(Exception):
    """Why no release was made (and what to do)."""


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, to compare. Raises ReleaseError if it is not x.y.z."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version, re.ASCII):
        raise ReleaseError(f"{version!r} is not a version (set VERSION=x.y.z)")
    return tuple(map(int, version.split(".")))


def set_version(code: str, version: str) -> str:
    """The text of src/tinykdump/__init__.py with that version. Raises ReleaseError if it is not
    later than the present one."""
    (old,) = VERSION.findall(code)
    if numbers(version) <= numbers(old):
        raise ReleaseError(f"{version} is not later than {old} (set a later VERSION)")
    return VERSION.sub(f'__version__ = "{version}"', code)


def set_spec(spec: str, version: str, date: datetime.date) -> str:
    """The text of tinykdump.spec with that version; the last entry's author signs the new one."""
    spec, versions = SPEC_VERSION.subn(rf"\g<1>{version}", spec)
    head = f"* {date:%a %b %d %Y}"
    spec, entries = SPEC_CHANGES.subn(
        rf"%changelog\n{head} \g<1> - {version}-1\n- See CHANGELOG.md\n\n", spec
    )
    if (versions, entries) != (1, 1):
        raise ReleaseError("tinykdump.spec has no version or no %changelog (correct it)")
    return spec


def set_debian(changelog: str, version: str, date: datetime.date) -> str:
    """The text of debian/changelog with that version; the last entry's author signs the new one."""
    found = DEBIAN_CHANGES.search(changelog)
    if not found:
        raise ReleaseError("debian/changelog has no entry (correct it)")
    return (
        f"tinykdump ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md\n\n"
        f" -- {found[1]}  {date:%a, %d %b %Y} 00:00:00 +0000\n\n{changelog}"
    )


def date_changes(changelog: str, version: str, date: datetime.date) -> str:
    """The text of CHANGELOG.md with the unreleased changes under that version."""
    found = UNRELEASED.search(changelog)
    if not found or not re.search(r"^- ", found[1], re.MULTILINE):
        raise ReleaseError("CHANGELOG.md has nothing under Unreleased (add what users notice)")
    heads = f"## [Unreleased]\n\n## [{version}] - {date.isoformat()}\n"
    return changelog[: found.start()] + heads + found[1] + changelog[found.end() :]


def run(*words: str | Path, cwd: Path = CHECKOUT, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(words, cwd=cwd, env=env, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def edit(tree: Path, version: str, date: datetime.date) -> None:
    """Change the files of a work tree for the release."""
    names = ("src/tinykdump/__init__.py", "tinykdump.spec", "debian/changelog", "CHANGELOG.md")
    code, spec, debian, changes = (tree / name for name in names)
    code.write_text(set_version(code.read_text(), version))
    spec.write_text(set_spec(spec.read_text(), version, date))
    debian.write_text(set_debian(debian.read_text(), version, date))
    changes.write_text(date_changes(changes.read_text(), version, date))


def build(tree: Path, output: Path, **environment: str) -> dict[str, str]:
    """Build tarball and packages of a work tree's commit; name -> SHA-256."""
    topdir = tree / "build/rpm"
    run("tools/rpm", "HEAD", f"--output={topdir}", cwd=tree, env={**os.environ, **environment})
    output.mkdir(parents=True)
    sums = {}
    for path in (*topdir.glob("SOURCES/*.tar.gz"), *topdir.glob("*RPMS/**/*.rpm")):
        shutil.copyfile(path, output / path.name)
        sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return sums


def release(version: str, output: Path) -> None:
    """Commit, build twice and compare; then move the branch and make the tag.

    Raises ReleaseError, or CalledProcessError if another program fails; the branch has then not
    moved.
    """
    numbers(version)
    if run("git", "status", "--porcelain"):
        raise ReleaseError("the work tree has changes (commit or stash them)")
    tag = f"v{version}"
    if run("git", "tag", "--list", tag):
        raise ReleaseError(f"tag {tag} exists already (set a later VERSION)")
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        first, second = Path(name) / "first", Path(name) / "second"
        run("git", "worktree", "add", "--quiet", "--detach", first)
        try:
            edit(first, version, datetime.datetime.now(datetime.UTC).date())
            # No hooks: those of pre-commit need the .venv of this checkout.
            run("git", "commit", "--quiet", "--no-verify", "--all",
                f"--message=Release {version}", cwd=first)  # fmt: skip
            commit = run("git", "rev-parse", "HEAD", cwd=first)
            run("git", "-c", "advice.detachedHead=false", "clone", "--quiet", first, second)
            sums = build(first, output)
        finally:
            run("git", "worktree", "remove", "--force", first)
        again = build(second, Path(name) / "again", TZ="Asia/Tokyo", LC_ALL="C")
    if sums != again:
        raise ReleaseError(f"two builds differ (compare {output} with tools/rpm {commit})")
    run("git", "merge", "--quiet", "--ff-only", commit)
    run("git", "tag", "--annotate", f"--message=tinykdump {version}", tag)
    (output / "SHA256SUMS").write_text("".join(f"{sums[each]}  {each}\n" for each in sorted(sums)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="x.y.z, later than the last one")
    version = parser.parse_args().version
    output = CHECKOUT / "build/release" / version
    shutil.rmtree(output, ignore_errors=True)
    try:
        release(version, output)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"release: {error} (see above; the branch has not moved)", file=sys.stderr)
        return 1
    for path in sorted(output.iterdir()):
        print(path)
    print(f"release: v{version} is committed and tagged (check both, then push them)",
          file=sys.stderr)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
