"""What tests of every kind share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import fakehost, keyring
from tests.fakehost import FakeHost
from tests.keyring import Keyring


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
    """A folder whose path leaves room for the socket of a gpg-agent: 108 bytes (unix(7))."""
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
