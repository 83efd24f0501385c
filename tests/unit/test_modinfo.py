# SPDX-License-Identifier: GPL-2.0-or-later
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import elfwriter
from tinykdump.errors import TinykdumpError
from tinykdump.image.modinfo import FORMAT, ModInfo, from_json, parse_modinfo, parse_module, to_json

TAGS = [
    ("vermagic", "6.1.0 SMP preempt mod_unload "),
    ("depends", "usb-common,usbcore"),
    ("alias", "pci:v*"),
    ("alias", "usb:v*"),
    ("softdep", "pre: a-b c post: d"),
    ("softdep", "post: e"),
    ("firmware", "x/y.bin"),
    ("description", "a=b=c"),
]
WHOLE = elfwriter.module(TAGS)


def test_a_module() -> None:
    found = parse_module(WHOLE, "x.ko")
    assert found == ModInfo(
        vermagic="6.1.0 SMP preempt mod_unload ", depends=("usb_common", "usbcore"),
        softdep_pre=("a_b", "c"), softdep_post=("d", "e"), aliases=("pci:v*", "usb:v*"),
        firmware=("x/y.bin",), size=len(elfwriter.modinfo(TAGS)),
    )  # fmt: skip
    assert found.kernel == "6.1.0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"vermagic=1\0depends=\0", ModInfo("1")),
        (b"vermagic=1\0no equals\0\0depends=a", ModInfo("1", depends=("a",))),
        (b"softdep=pre:\0", ModInfo("")),
        (b"softdep=a pre: b\0", ModInfo("", softdep_pre=("b",))),
        (b"alias=\xff\0", ModInfo("", aliases=("\N{REPLACEMENT CHARACTER}",))),
    ],
)
def test_unusual_contents(text: bytes, expected: ModInfo) -> None:
    assert parse_modinfo(text) == expected


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"x" * 4096, elfwriter.program(), elfwriter.module([])]
)
def test_files_that_are_not_modules(data: bytes) -> None:
    with pytest.raises(TinykdumpError, match=r"x\.ko is not a complete kernel module \(reinstall"):
        parse_module(data, "x.ko")


@pytest.mark.parametrize("size", range(0, len(WHOLE), 7))
def test_a_module_cut_off_anywhere(size: int) -> None:
    with pytest.raises(TinykdumpError, match="not a complete kernel module"):
        parse_module(WHOLE[:size], "x.ko")


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8))
def test_damage_is_an_error_or_harmless(place: int, noise: bytes) -> None:
    try:
        parse_module(WHOLE[:place] + noise + WHOLE[place + len(noise) :], "x.ko")
    except TinykdumpError as error:
        assert "not a complete kernel module" in error.message


def test_what_modules_say_is_read_as_it_was_written() -> None:
    noted = {"ab": parse_module(WHOLE, "x.ko"), "cd": ModInfo("")}
    assert from_json(to_json(noted)) == noted
    assert from_json(to_json({})) == {}


WRITTEN = json.loads(to_json({"ab": parse_module(WHOLE, "x.ko")}))
WRONG: tuple[dict[str, object], ...] = (
    {"size": "1"}, {"vermagic": 1}, {"aliases": "x"}, {"aliases": [1]}, {"other": []},
    {"depends": None},
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "3", '{"format": 1}', '{"format": 1, "modules": []}',
        json.dumps(WRITTEN | {"format": FORMAT + 1}),
        *(json.dumps(WRITTEN | {"modules": {"ab": WRITTEN["modules"]["ab"] | change}})
          for change in WRONG),
        json.dumps(WRITTEN | {"modules": {"ab": {"vermagic": ""}}}),
    ],
)  # fmt: skip
def test_damaged_notes_say_nothing(text: str) -> None:
    assert from_json(text) == {}
