# SPDX-License-Identifier: GPL-2.0-or-later
from pathlib import Path

import pytest

from tests.fakehost import FakeHost
from tinykdump.errors import TinykdumpError


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/etc/real", "/etc/real"),  # absolute: stays inside the tree
        ("real", "/etc/real"),
        ("../etc/real", "/etc/real"),
        ("../../../../etc/real", "/etc/real"),
        ("missing", None),
        ("link", None),  # itself
        ("real/below", None),
    ],
)
def test_links_are_followed_inside_the_tree(
    tmp_path: Path, target: str, expected: str | None
) -> None:
    fake = FakeHost(tmp_path)
    fake.write("/etc/real", "text\n")
    fake.link("/etc/link", target)
    found = fake.host.resolve("/etc/link")
    assert found == (Path(expected) if expected else None)
    assert fake.host.exists("/etc/link") is (expected is not None)
    assert fake.host.text("/etc/link") == ("text" if expected else None)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TinykdumpError, match=r"^/x: No such file or directory \(check"):
        FakeHost(tmp_path).host.read("/x")
