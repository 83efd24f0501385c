# SPDX-License-Identifier: GPL-2.0-or-later
"""The picture of the modules in HACKING.md is that of the code."""

import graphlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_lint import tracked
from tools import architecture

CHECKOUT = Path(__file__).parents[2]
MODULES = {
    "__init__": "__version__ = ''",
    "errors": "import sys",
    "image": "",
    "image.pack": "from tinykdump.errors import TinykdumpError",
    "image.plan": "import tinykdump.image.pack\ndef late():\n from tinykdump import errors",
    "build": "from tinykdump import __version__\nfrom tinykdump.image import plan, __doc__",
    "cli": "from tinykdump.build import draft",
}


def test_the_picture_is_that_of_the_code() -> None:
    command = [sys.executable, "tools/architecture.py", "--check"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_picture_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One module that is named otherwise; --check leaves it, and without --check it is repaired."""
    copy = tmp_path / "HACKING.md"
    text = architecture.DOCUMENT.read_text()
    copy.write_text(re.sub(r"\bactions$", "servant", text, count=1, flags=re.MULTILINE))
    assert copy.read_text() != text
    monkeypatch.setattr(architecture, "DOCUMENT", copy)
    monkeypatch.setattr("sys.argv", ["architecture.py", "--check"])
    assert architecture.main() == 1
    assert "servant" in copy.read_text()
    monkeypatch.setattr("sys.argv", ["architecture.py"])
    assert architecture.main() == 0
    assert copy.read_text() == text


def test_each_module_stands_on_what_it_imports() -> None:
    assert architecture.floors(MODULES, "tinykdump") == [
        ["cli"], ["build"], ["image.plan"], ["image.pack"], ["__init__", "errors", "image"],
    ]  # fmt: skip


def test_files_of_a_package_in_it(tmp_path: Path) -> None:
    for name in ("__init__.py", "cli.py", "image/__init__.py", "image/pack.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert architecture.sources(tmp_path) == {
        "__init__": "__init__.py", "cli": "cli.py", "image": "image/__init__.py",
        "image.pack": "image/pack.py",
    }  # fmt: skip


def test_a_circle_is_no_picture() -> None:
    modules = MODULES | {"errors": "def f():\n import tinykdump.cli"}
    with pytest.raises(graphlib.CycleError, match="cli"):
        architecture.floors(modules, "tinykdump")


def test_a_relative_import_is_not_overlooked() -> None:
    with pytest.raises(ValueError, match="line 2"):
        architecture.floors(MODULES | {"errors": "\nfrom . import cli"}, "tinykdump")


@pytest.mark.parametrize("section", ["Adding a command", "Adding an architecture"])
def test_what_the_recipes_name_is_there(section: str) -> None:
    """Names of the code, as in `cli.parser()`, and files."""
    text = architecture.DOCUMENT.read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    names = re.findall(r"`((?:\w+\.)+\w+)(?:\(\))?`", text)
    files = [name for name in names if name.endswith((".py", ".spec"))]
    assert len(names) - len(files) >= 3
    for name in set(names) - set(files):
        pkgutil.resolve_name(f"tinykdump.{name}")
    for name in [*files, *re.findall(r"`(\w+/[\w./]+)`", text)]:
        assert any(path.match(name) for path in tracked()) or (CHECKOUT / name).is_dir(), name


def arrows() -> dict[str, set[str]]:
    """Each module with those that it imports."""
    modules = architecture.sources(architecture.PACKAGE)
    return {
        name: {*architecture.imported(text, "tinykdump", modules)} - {name}
        for name, text in modules.items()
    }


def test_what_a_build_uses_and_what_uses_a_build_are_apart() -> None:
    """Nothing that image/ imports imports image/, so that the two are no circle, either."""
    graph = arrows()
    rooms = {(name.split(".")[0], own.split(".")[0]) for name in graph for own in graph[name]}
    print(f"{len(graph)} modules, {sum(map(len, graph.values()))} imports; with image/ as one: "
          f"{len({name.split('.')[0] for name in graph})}, "
          f"{sum(name != own for name, own in rooms)}")  # fmt: skip
    below = {own for name, owns in graph.items() for own in owns if name.startswith("image.")}
    todo = below = {name for name in below if not name.startswith("image")}
    while todo:
        todo = {own for name in todo for own in graph[name]} - below
        below |= todo
    assert {name for name in below if name.startswith("image")} == set()
