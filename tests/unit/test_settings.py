import pytest

from tests.fakehost import FakeHost
from tinykdump.errors import TinykdumpError, UsageError
from tinykdump.settings import load_config

FILE = "/etc/default/tinykdump"


def test_no_file_at_all(fake: FakeHost) -> None:
    assert load_config(fake.host, {}).wait == 60


def test_drop_ins_follow_the_file_in_the_order_of_their_names(fake: FakeHost) -> None:
    fake.write(FILE, "[dump]\nwait = 1\nkeep = 1\nlevel = 1\n")
    fake.write(f"{FILE}.d/20-b.conf", "[dump]\nlevel = 3\n")
    fake.write(f"{FILE}.d/10-a.conf", "[dump]\nkeep = 2\nlevel = 2\n")
    fake.write(f"{FILE}.d/30-c.conf.rpmsave", "[dump]\nlevel = 4\n")
    found = load_config(fake.host, {})
    assert (found.wait, found.keep, found.level) == (1, 2, 3)


def test_the_drop_in_is_named(fake: FakeHost) -> None:
    fake.write(f"{FILE}.d/10-a.conf", "[dump]\nwait = x\n")
    with pytest.raises(UsageError, match=r"^/etc/default/tinykdump\.d/10-a\.conf: \[dump\] wait"):
        load_config(fake.host, {})


def test_a_named_file_stands_alone(fake: FakeHost) -> None:
    fake.write(FILE, "[dump]\nwait = 1\n")
    other = fake.write("/other", "[dump]\nkeep = 2\n")
    found = load_config(fake.host, {"level": "3"}, str(other))
    assert (found.wait, found.keep, found.level) == (60, 2, 3)


@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), (b"\xff\xfe", "not text")])
def test_a_named_file_that_can_not_be_read(
    fake: FakeHost, content: bytes | None, says: str
) -> None:
    if content:
        fake.write("/other", content)
    with pytest.raises(UsageError, match=says):
        load_config(fake.host, {}, str(fake.path("/other")))


def test_the_default_file_is_not_text(fake: FakeHost) -> None:
    fake.write(FILE, b"\xff\xfe")
    with pytest.raises(TinykdumpError, match=f"^{FILE} is not text"):
        load_config(fake.host, {})
