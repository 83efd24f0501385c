# SPDX-License-Identifier: GPL-2.0-or-later
"""What tests of every kind share."""

import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import fakehost, keyring
from tests.fakehost import FakeHost
from tests.keyring import Keyring

pytest_plugins = ("pytester", "tests.vmtest.plugin")

# A busy machine makes a test slow, not wrong.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# What is not shown by the tests that ran: what, why, and whether that holds here.
NOT_HERE = (
    ("Fedora: dnf in tools/deps, the packages, and the service under SELinux",
     "this machine's packages come from apt", shutil.which("dnf") is None),
    ("guests of other architectures", "crash kernels are built for the machine's own",
     platform.machine() == "x86_64"),
    ("the kernel series", "they are built and booted by make kernel-check", True),
    ("real USB controllers and sticks", "they are QEMU's device models here", True),
)  # fmt: skip


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was not run, so that nobody takes the last line for more than it says."""
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
    terminalreporter.section("not run here")
    for what, why, holds in NOT_HERE:
        if holds:
            terminalreporter.write_line(f"{what}: {why}")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyring]:
    """Real keys: good, other, expired, revoked, sign-only."""
    made = keyring.make(tmp_path_factory.mktemp("keys") / "home")
    yield made
    made.close()


@pytest.fixture(scope="session")
def fake_template(tmp_path_factory: pytest.TempPathFactory) -> FakeHost:
    """Written once; tests take ``fake``."""
    return fakehost.write(tmp_path_factory.mktemp("host") / "root")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for the socket of a gpg-agent: 108 bytes (unix(7))."""
    with tempfile.TemporaryDirectory(prefix="tk-") as path:
        yield Path(path)


@pytest.fixture
def fake(fake_template: FakeHost, short_path: Path) -> FakeHost:
    """A machine of a test's own, as a tree of files."""
    return fakehost.copy(fake_template, short_path / "root")


@pytest.fixture(scope="session")
def real_programs_template(tmp_path_factory: pytest.TempPathFactory) -> FakeHost:
    """With the real makedumpfile and gpg; tests take ``fake_with_programs``."""
    made = fakehost.write(tmp_path_factory.mktemp("full") / "root")
    fakehost.install_real(made, "makedumpfile", "gpg")
    return made


@pytest.fixture
def fake_with_programs(real_programs_template: FakeHost, short_path: Path) -> FakeHost:
    """A machine that a whole image can be built on."""
    return fakehost.copy(real_programs_template, short_path / "root")
