# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of packages against the spec, debian/control, the code, and the tests' stand-ins."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rpm import distributions, repository
from tests.rpm.test_spec import rpmspec

CHECKOUT = Path(__file__).parents[2]
SOURCE = CHECKOUT / "src/tinykdump"
# Of programs that are no package's own: Python runs, and the shell is everywhere.
EVERYWHERE = {"python3 >= 3.11", "/bin/sh"}
SELINUX = {"selinux-policy", "(tinykdump-selinux if selinux-policy-targeted)"}
# What goes into the image.
COPIED = ("busybox", "makedumpfile", "gpg")
MODULES = ("drgn", "elftools", "gnupg", "rich", "rpm")
# Needed by others: kmod's depmod by kernel-install, systemd's and udev's by packages and blkid.
OTHERS = {"depmod", "kernel-install", "udevadm"}


@pytest.mark.parametrize("name", distributions.RPM)
def test_the_spec_requires_what_is_needed(name: str) -> None:
    table = distributions.RPM[name]
    required = {*rpmspec(name, "-q", "--without=kernel", "--requires")} - EVERYWHERE - SELINUX
    assert required == table.packages - table.automatic
    recommended = rpmspec(name, "-q", "--without=kernel", "--qf=[%{recommends}\\n]")
    assert set(recommended) == table.recommended


def test_debians_package_depends_on_what_is_needed() -> None:
    table = distributions.ALL["debian"]
    control = (CHECKOUT / "debian/control").read_text()
    (depends,) = re.findall(r"^Depends:\n((?: .+\n)+)", control, re.MULTILINE)
    names = {line.strip().split(",")[0] for line in depends.splitlines()}
    names -= {"python3 (>= 3.11)", "${misc:Depends}", "${python3:Depends}"}
    assert names == table.packages - table.automatic
    (recommends,) = re.findall(r"^Recommends: (.+)$", control, re.MULTILINE)
    assert set(recommends.split(", ")) == table.recommended


def commands() -> Iterator[str]:
    """The programs that the code starts: the first words of argument lists."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.List | ast.Tuple) or len(node.elts) < 2:
                continue
            first, second = node.elts[:2]
            word = first.value if isinstance(first, ast.Constant) else ""
            option = isinstance(second, ast.Constant) and str(second.value).startswith("-")
            if re.fullmatch("[a-z]+[-.a-z0-9]*", str(word)) and (
                option or isinstance(second, ast.Starred)
            ):
                yield str(word)


@pytest.mark.parametrize("name", distributions.ALL)
def test_the_code_starts_nothing_else(name: str) -> None:
    needs = set(distributions.ALL[name].needs)
    assert {*commands()} <= needs
    started = {*commands(), *COPIED, *MODULES, *OTHERS}
    assert needs <= started


@pytest.mark.parametrize("name", distributions.RPM)
def test_updates_of_what_is_copied_rebuild_the_images(name: str) -> None:
    """The file trigger gets the names of these files, on each distribution."""
    text = "\n".join(rpmspec(name, "-P", "--without=kernel"))
    ((places, pattern),) = re.findall(
        r"^%transfiletriggerin +-- (/usr/bin.*)\n! grep -qE '(.*?)'", text, re.MULTILINE
    )
    for program in COPIED:
        file = distributions.RPM[name].needs[program].file
        assert any(file.startswith(f"{place}/") for place in places.split()), file
        assert re.search(pattern, file), file


def test_debians_triggers_are_for_what_is_copied() -> None:
    triggers = (CHECKOUT / "debian/tinykdump.triggers").read_text()
    for program in COPIED:
        file = distributions.ALL["debian"].needs[program].file
        assert f"interest-noawait {file}\n" in triggers


def test_the_stand_ins_have_fedoras_names() -> None:
    """The tests in guests install under these names what Debian has under others."""
    table = distributions.RPM["fedora"]
    assert table.packages - {"busybox"} <= set(repository.BASE.provides)


def test_the_modules_are_there() -> None:
    assert [name for name in MODULES if importlib.util.find_spec(name) is None] == []
