# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure modules take values and give values: what they import and call says so."""

import ast
from pathlib import Path

import pytest

import tinykdump

PACKAGE = Path(tinykdump.__file__).parent

PURE = {
    "__init__", "cmdline", "config", "crashconf", "crashlog", "elf", "errors", "flattened", "image",
    "kernelimage", "makedumpfile", "manifest", "memory", "modinfo", "modprobe", "modules",
    "placeholder", "room",
}  # fmt: skip
# These touch the system, each for the reason that its first line gives.
EFFECTS = {
    "__main__",
    "build", "cli", "drivers", "files", "hardware", "host", "kernel_install", "keys", "kmod",
    "libraries", "load", "pack", "packages", "programs", "pstore", "report", "reserve", "restore",
    "run", "service", "settings", "state", "status", "stick", "transaction",
}  # fmt: skip

# What pure modules may import; of pathlib only the names of paths, which do nothing.
ALLOWED = {
    "array", "collections.abc", "configparser", "contextlib", "dataclasses", "elftools", "fnmatch",
    "hashlib", "io", "itertools", "json", "pathlib", "re", "shlex", "stat", "struct", "typing",
}  # fmt: skip
# Methods of Path and file objects that reach the file system, and the built-in doors to it.
CALLS = {
    "absolute", "chmod", "cwd", "exists", "expanduser", "glob", "hardlink_to", "home", "is_dir",
    "is_file", "is_symlink", "iterdir", "lstat", "mkdir", "open", "read_bytes", "read_text",
    "readlink", "rename", "resolve", "rglob", "rmdir", "stat", "symlink_to", "touch", "unlink",
    "write_bytes", "write_text",
}  # fmt: skip
NAMES = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}


def violations(source: str) -> list[str]:
    """What a pure module must not do, with the line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        imported: list[str] = []
        if isinstance(node, ast.Import):
            imported = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
            if node.module == "tinykdump":
                imported = [f"tinykdump.{name.name}" for name in node.names]
        elif isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id=name) if name in NAMES:
                    found.append(f"{node.lineno}: calls {name}()")
                case ast.Attribute(attr=name) if name in CALLS:
                    found.append(f"{node.lineno}: calls .{name}()")
        for name in imported:
            top, _, rest = name.partition(".")
            pure = rest.split(".")[0] in PURE if top == "tinykdump" else {name, top} & ALLOWED
            if not pure:
                found.append(f"{node.lineno}: imports {name}")  # type: ignore[attr-defined] # one of the above
    return found


def test_every_module_is_in_one_of_the_lists() -> None:
    there = {path.stem for path in PACKAGE.glob("*.py")}
    assert there == PURE | EFFECTS
    assert not PURE & EFFECTS


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure(name: str) -> None:
    assert violations((PACKAGE / f"{name}.py").read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os", "import subprocess as s", "from time import time", "import os.path",
        "from tinykdump import image, run", "from tinykdump.host import Host",
        "import tinykdump.pack", "def f(p):\n return p.read_bytes()", "open('x')",
        "def f():\n import socket", "Path.home()",
    ],
)  # fmt: skip
def test_what_is_seen(source: str) -> None:
    assert violations(source)


def test_effects_are_what_they_say() -> None:
    """A module that has become pure moves to the other list."""
    pure = {name for name in EFFECTS if not violations((PACKAGE / f"{name}.py").read_text())}
    assert pure == set()
