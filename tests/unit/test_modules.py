# SPDX-License-Identifier: GPL-2.0-or-later
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinykdump.image.modinfo import ModInfo
from tinykdump.image.modules import Module, NotFoundError, Wish, closure, controllers, wishes

# Name -> its .modinfo; None if it is built in.
Tree = Mapping[str, ModInfo | None]


def info(*depends: str, pre: tuple[str, ...] = (), post: tuple[str, ...] = ()) -> ModInfo:
    return ModInfo("6.1.0", depends=depends, softdep_pre=pre, softdep_post=post)


def order(tree: Tree, *wanted: str | Wish) -> list[str]:
    def lookup(name: str) -> Module | None:
        if name not in tree:
            raise NotFoundError(f"module {name} is not there", "hint")
        found = tree[name]
        return Module(name, Path(f"/{name}.ko"), found) if found else None

    all_wishes = [wish if isinstance(wish, Wish) else Wish(wish) for wish in wanted]
    return [module.name for module in closure(all_wishes, lookup)]


OPTIONAL = Wish("b", required=False)


@pytest.mark.parametrize(
    ("tree", "wanted", "expected"),
    [
        ({"a": info()}, ["a"], ["a"]),
        ({"a": info("b"), "b": info("c"), "c": info()}, ["a"], ["c", "b", "a"]),
        ({"a": info("c"), "b": info("c"), "c": info()}, ["a", "b", "a"], ["c", "a", "b"]),
        ({"a": info("b"), "b": None}, ["a"], ["a"]),
        ({"a": None}, ["a"], []),
        # Soft dependencies: before, after, and missing ones.
        ({"a": info(pre=("b",), post=("c",)), "b": info(), "c": info()}, ["a"], ["b", "a", "c"]),
        ({"a": info(pre=("b",), post=("c",))}, ["a"], ["a"]),
        ({"a": info(pre=("b",)), "b": info("x")}, ["a"], ["a"]),
        # Soft dependencies can form cycles.
        ({"a": info(pre=("b",)), "b": info(pre=("a",))}, ["a"], ["b", "a"]),
        ({"a": info("b"), "b": info(pre=("a",))}, ["b"], ["b", "a"]),
        ({"a": info("a")}, ["a"], ["a"]),
        # Optional modules.
        ({"a": info()}, ["a", OPTIONAL], ["a"]),
        ({"a": info(), "b": info("x")}, ["a", OPTIONAL], ["a"]),
        ({"a": info(), "b": info()}, [OPTIONAL, "a"], ["b", "a"]),
    ],
)
def test_load_order(tree: Tree, wanted: list[str | Wish], expected: list[str]) -> None:
    assert order(tree, *wanted) == expected


@pytest.mark.parametrize(
    ("tree", "wanted"),
    [
        ({}, ["x"]),
        ({"a": info("x")}, ["a"]),
        # A module that is missing as a soft dependency is an error if it is also required.
        ({"a": info(pre=("b",)), "b": info("x")}, ["a", "b"]),
        ({"a": info(pre=("b",)), "b": info("x"), "c": info("b")}, ["a", "c"]),
    ],
)
def test_a_missing_module_that_is_required_is_an_error(tree: Tree, wanted: list[str]) -> None:
    with pytest.raises(NotFoundError, match="module x"):
        order(tree, *wanted)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, ModInfo]:
    """Modules that depend only on earlier ones, as real ones do, and softly on any."""
    names = [f"m{number}" for number in range(draw(st.integers(1, 8)))]
    lists = st.lists(st.sampled_from(names), max_size=2).map(tuple)
    return {
        name: info(
            *draw(st.lists(st.sampled_from(names[:number] or [name]), max_size=3))[: number * 3],
            pre=draw(lists),
            post=draw(lists),
        )
        for number, name in enumerate(names)
    }


@given(trees(), st.data())
def test_each_module_comes_once_and_after_its_dependencies(
    tree: dict[str, ModInfo], data: st.DataObject
) -> None:
    wanted = data.draw(st.lists(st.sampled_from(sorted(tree)), min_size=1))
    found = order(tree, *wanted)
    assert len(found) == len(set(found))
    assert set(wanted) <= set(found)
    for place, name in enumerate(found):
        assert set(tree[name].depends) <= set(found[:place])


def test_wishes_are_in_load_order() -> None:
    found = wishes(host_controllers=["xhci_pci"], filesystems=["vfat", "ext3"],
                   buses=["dwc3"], storage=["uas", "usb_storage", "ums_realtek"],
                   watchdogs=["iTCO_wdt"], extra=["ast"])  # fmt: skip
    assert [(wish.name, wish.required) for wish in found] == [
        ("ast", True), ("iTCO_wdt", False), ("dwc3", False), ("xhci_pci", True),
        ("usb_storage", True), ("uas", False), ("ums_realtek", False), ("sd_mod", True),
        ("vfat", True), ("nls_cp437", True), ("nls_ascii", True), ("ext4", True),
    ]  # fmt: skip


def test_controllers_are_matched_as_modprobe_does() -> None:
    drivers = [
        Module("xhci", Path(), ModInfo("", aliases=("pci:v*d*bc0Csc03i30*",))),
        Module("ehci", Path(), ModInfo("", aliases=("pci:v*bc0Csc03i2[0-9]*", "of:x"))),
        Module("none", Path(), ModInfo("")),
    ]
    devices = ["pci:v00001B36d0000000Dbc0Csc03i30", "pci:v0bc0csc03i20"]
    assert controllers(devices, drivers) == ("xhci",)
    assert controllers([*devices, "pci:v0bc0Csc03i20"], drivers) == ("ehci", "xhci")
    assert controllers([], drivers) == ()
