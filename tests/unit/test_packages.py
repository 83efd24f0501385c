from tests.fakehost import FakeHost
from tinykdump import packages


def test_without_a_database_nothing_is_recorded(fake: FakeHost) -> None:
    assert packages.owner_lookup(fake.host)("/usr/bin/busybox") == ""
