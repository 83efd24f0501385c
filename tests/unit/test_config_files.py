# SPDX-License-Identifier: GPL-2.0-or-later
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakehost import FakeHost
from tinykdump import cli
from tinykdump.config_files import load_config
from tinykdump.errors import TinykdumpError, UsageError

FILE = "/etc/default/tinykdump"


def test_without_a_file_the_defaults_apply(fake: FakeHost) -> None:
    assert load_config(fake.host, {}).wait == 60


def test_drop_ins_follow_the_file_in_the_order_of_their_names(fake: FakeHost) -> None:
    fake.write(FILE, "[dump]\nwait = 1\nkeep = 1\nlevel = 1\n")
    fake.write(f"{FILE}.d/20-b.conf", "[dump]\nlevel = 3\n")
    fake.write(f"{FILE}.d/10-a.conf", "[dump]\nkeep = 2\nlevel = 2\n")
    fake.write(f"{FILE}.d/30-c.conf.rpmsave", "[dump]\nlevel = 4\n")
    found = load_config(fake.host, {})
    assert (found.wait, found.keep, found.level) == (1, 2, 3)


def test_an_error_names_the_drop_in(fake: FakeHost) -> None:
    fake.write(f"{FILE}.d/10-a.conf", "[dump]\nwait = x\n")
    with pytest.raises(UsageError, match=r"^/etc/default/tinykdump\.d/10-a\.conf: \[dump\] wait"):
        load_config(fake.host, {})


def test_a_named_file_is_read_alone(fake: FakeHost) -> None:
    fake.write(FILE, "[dump]\nwait = 1\n")
    other = fake.write("/other", "[dump]\nkeep = 2\n")
    found = load_config(fake.host, {"level": "3"}, str(other))
    assert (found.wait, found.keep, found.level) == (60, 2, 3)


@pytest.mark.parametrize(("content", "says"), [(None, "No such file"), (b"\xff\xfe", "not text")])
def test_a_named_file_that_cannot_be_read(fake: FakeHost, content: bytes | None, says: str) -> None:
    if content:
        fake.write("/other", content)
    with pytest.raises(UsageError, match=says):
        load_config(fake.host, {}, str(fake.path("/other")))


def test_a_default_file_that_is_not_text(fake: FakeHost) -> None:
    fake.write(FILE, b"\xff\xfe")
    with pytest.raises(TinykdumpError, match=f"^{FILE} is not text"):
        load_config(fake.host, {})


def owned_by_another_user(path: Path) -> None:
    os.chown(path, 65534, 65534)


SPOILED: dict[str, Callable[[Path], None]] = {
    "group can write": lambda path: path.chmod(path.stat().st_mode | 0o020),
    "others can write": lambda path: path.chmod(path.stat().st_mode | 0o002),
    "somebody owns": owned_by_another_user,
}


@pytest.fixture
def tree(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """The machine that the command works on."""
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    return fake


PLACES = ("/safe/own/file", "/safe/own", "/safe")
UNSAFE = [
    *((kind, PLACES[0], "somebody owns") for kind in ("drop-in", "named", "script", "key")),
    *(("configuration", place, spoil) for place in PLACES for spoil in SPOILED),
]


@pytest.mark.checkout
@pytest.mark.parametrize(("kind", "place", "spoil"), UNSAFE)
def test_files_that_other_users_can_write_are_refused(
    tree: FakeHost, capfd: pytest.CaptureFixture[str], kind: str, place: str, spoil: str
) -> None:
    """Its content is not read."""
    file = tree.write("/safe/own/file", "#!/bin/sh\n", 0o755)
    words, shown, named = ["-b"], place, "/safe/own/file"
    match kind:
        case "configuration":
            tree.link(FILE, named)
            named = FILE
        case "drop-in":
            named = f"{FILE}.d/10-a.conf"
            tree.link(named, "/safe/own/file")
        case "named":
            shown, named = str(tree.path(place)), str(file)
            words += ["-c", named]
        case "script":
            tree.write(FILE, "[dump]\nencrypt = no\n")
            words += ["-s", named]
        case "key":
            words += ["-k", named]
    SPOILED[spoil](tree.path(place))
    assert cli.main(words) == 1
    assert capfd.readouterr().err == (
        f"tinykdump: {named} is not safe: users other than root can write {shown} "
        "(chown root and chmod go-w it, or move the file)\n"
    )


@pytest.mark.checkout
def test_roots_files_in_sticky_directories_are_safe(fake: FakeHost) -> None:
    fake.write("/tmp/x", mode=0o644)  # noqa: S108 - in the tree
    fake.path("/tmp").chmod(0o1777)  # noqa: S108
    fake.host.vouch("/tmp/x")  # noqa: S108
    owned_by_another_user(fake.path("/tmp/x"))  # noqa: S108
    with pytest.raises(TinykdumpError, match="users other than root can write /tmp/x"):
        fake.host.vouch("/tmp/x")  # noqa: S108


@pytest.mark.checkout
def test_a_link_that_other_users_can_change_is_not_safe(fake: FakeHost) -> None:
    fake.write("/safe/file")
    fake.link("/home/me/link", "/safe/file")
    fake.host.vouch("/home/me/link")
    owned_by_another_user(fake.path("/home/me"))
    with pytest.raises(TinykdumpError, match="users other than root can write /home/me "):
        fake.host.vouch("/home/me/link")
    fake.link("/etc/mine", "/home/me")  # absolute, below the tree
    with pytest.raises(TinykdumpError, match="users other than root can write /home/me "):
        fake.host.vouch("/etc/mine/link")
