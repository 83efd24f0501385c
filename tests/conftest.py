# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures and settings for all tests."""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import fakehost, keyring
from tests.dumped import Dump
from tests.fakehost import FakeHost
from tests.keyring import Keyring
from tests.vmtest import fedorapolicy

pytest_plugins = ("pytester", "tests.vmtest.plugin")

# A busy machine makes a test slow, not wrong.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
# For make quick: a fifth of the usual examples of each property.
settings.register_profile("quick", deadline=None, max_examples=20)

# What these tests do not cover, why, and whether that applies to this machine.
NOT_HERE = (
    ("Fedora: dnf in tools/deps", "this machine has no dnf: packages are installed on Debian with "
     "rpm 4 and 6", shutil.which("dnf") is None),
    ("Fedora's SELinux policy", f"{fedorapolicy.SOURCE} does not name its source: the policy "
     "module runs with Debian's reference policy, and with what that lacks of Fedora's",
     fedorapolicy.SOURCE not in os.environ),
    ("kdump-utils and rpm-ostree", "Fedora's packages cannot be installed here: a unit does what "
     "kdumpctl does, and bubblewrap gets rpm-ostree's arguments", True),
    ("Fedora's kernel and busybox, and openSUSE's busybox", "their packages cannot be installed "
     "here: both are built with what those distributions' configurations differ in", True),
    ("Secure Boot with a shim", "OVMF has the key of the tests in its db", True),
    ("other architectures", "a guest with arm64 runs in make long-check, and the kernel series in "
     "make kernel-check", platform.machine() == "x86_64"),
    ("the kernel series", "make kernel-check builds and boots them", True),
    ("real USB controllers and sticks", "the guests have QEMU's device models", True),
)  # fmt: skip


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the measured times, and what these tests do not cover."""
    times = [
        f"{report.nodeid}: {value}"
        for report in terminalreporter.getreports("passed")
        for name, value in report.user_properties
        if name == "time"
    ]
    if times:
        terminalreporter.section("times")
        for line in times:
            terminalreporter.write_line(line)
    terminalreporter.section("not covered here")
    for what, why, holds in NOT_HERE:
        if holds:
            terminalreporter.write_line(f"{what}: {why}")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyring]:
    """Real keys: good, other, expired, revoked and sign-only."""
    made = keyring.make(tmp_path_factory.mktemp("keys") / "home")
    yield made
    made.close()


@pytest.fixture(scope="session")
def fake_template(tmp_path_factory: pytest.TempPathFactory) -> FakeHost:
    """The tree that ``fake`` copies."""
    return fakehost.write(tmp_path_factory.mktemp("host") / "root")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory with a short path: a gpg-agent's socket can have at most 108 bytes (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="tk-") as path:
        yield Path(path)


@pytest.fixture
def fake(fake_template: FakeHost, short_path: Path) -> FakeHost:
    """A machine as a directory tree, one for each test."""
    return fakehost.copy(fake_template, short_path / "root")


@pytest.fixture(scope="session")
def real_programs_template(tmp_path_factory: pytest.TempPathFactory) -> FakeHost:
    """The tree that ``fake_with_programs`` copies."""
    made = fakehost.write(tmp_path_factory.mktemp("full") / "root")
    fakehost.install_real(made, "makedumpfile", "gpg")
    return made


@pytest.fixture
def fake_with_programs(real_programs_template: FakeHost, short_path: Path) -> FakeHost:
    """A machine with the real makedumpfile and gpg, for builds of complete images."""
    return fakehost.copy(real_programs_template, short_path / "root")


def _in_zone(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", name)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local zone that is not UTC."""
    yield from _in_zone("TST-5:30", monkeypatch)


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local zone is UTC."""
    yield from _in_zone("UTC", monkeypatch)


@pytest.fixture
def dump(tmp_path: Path, keys: Keyring) -> Dump:
    return Dump(tmp_path / "dump", keys)
