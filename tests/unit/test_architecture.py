# SPDX-License-Identifier: GPL-2.0-or-later
"""The picture of the modules in HACKING.md matches the code."""

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


def test_the_picture_matches_the_code() -> None:
    command = [sys.executable, "tools/architecture.py", "--check"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_picture_is_reported_and_corrected(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """--check reports a wrong name and writes nothing; without --check it is corrected."""
    copy = tmp_path / "HACKING.md"
    text = architecture.DOCUMENT.read_text()
    copy.write_text(re.sub(r"^     actions\b", "     servant", text, count=1, flags=re.MULTILINE))
    assert copy.read_text() != text
    monkeypatch.setattr(architecture, "DOCUMENT", copy)
    monkeypatch.setattr("sys.argv", ["architecture.py", "--check"])
    assert architecture.main() == 1
    assert "servant" in copy.read_text()
    monkeypatch.setattr("sys.argv", ["architecture.py"])
    assert architecture.main() == 0
    assert copy.read_text() == text


def test_each_module_is_above_those_that_it_imports() -> None:
    assert architecture.floors(MODULES, "tinykdump") == [
        ["cli"], ["build"], ["image.plan"], ["image.pack"], ["__init__", "errors", "image"],
    ]  # fmt: skip


def test_a_subpackage_has_its_own_name(tmp_path: Path) -> None:
    for name in ("__init__.py", "cli.py", "image/__init__.py", "image/pack.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert architecture.sources(tmp_path) == {
        "__init__": "__init__.py", "cli": "cli.py", "image": "image/__init__.py",
        "image.pack": "image/pack.py",
    }  # fmt: skip


def test_circular_imports_are_an_error() -> None:
    modules = MODULES | {"errors": "def f():\n import tinykdump.cli"}
    with pytest.raises(graphlib.CycleError, match="cli"):
        architecture.floors(modules, "tinykdump")


def test_a_relative_import_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 2"):
        architecture.floors(MODULES | {"errors": "\nfrom . import cli"}, "tinykdump")


@pytest.mark.checkout
@pytest.mark.parametrize("section", ["Adding a command", "Adding an architecture"])
def test_names_in_the_recipes_exist(section: str) -> None:
    """Names in the code, such as `grammar.parser()`, and files."""
    text = architecture.DOCUMENT.read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    names = re.findall(r"`((?:\w+\.)+\w+)(?:\(\))?`", text)
    files = [name for name in names if name.endswith((".py", ".spec"))]
    assert len(names) - len(files) >= 3
    for name in set(names) - set(files):
        pkgutil.resolve_name(f"tinykdump.{name}")
    for name in [*files, *re.findall(r"`(\w+/[\w./]+)`", text)]:
        assert any(path.match(name) for path in tracked()) or (CHECKOUT / name).is_dir(), name


def arrows() -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    modules = architecture.sources(architecture.PACKAGE)
    return {
        name: {*architecture.imported(text, "tinykdump", modules)} - {name}
        for name, text in modules.items()
    }


def test_image_and_the_other_modules_do_not_import_each_other_in_a_circle() -> None:
    """Nothing that image/ imports imports image/."""
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
