# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure modules neither import nor call anything that touches the system."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinykdump

PACKAGE = Path(tinykdump.__file__).parent

PURE = {
    "__init__", "architecture", "clock", "config", "crashlog", "debuginfo", "disks", "dmesg",
    "dump", "errors", "filesystems", "flattened", "grammar", "guest", "image/__init__",
    "image/cmdline", "image/elf", "image/entries", "image/handover", "image/makedumpfile",
    "image/manifest", "image/modinfo", "image/modprobe", "image/modules", "image/placeholder",
    "image/screens", "kernelimage", "memory", "openpgp", "room", "status", "text",
    "vmcore/__init__", "vmcore/facts", "vmcore/lines", "vmcore/log", "vmcore/page",
    "vmcore/pages", "vmcore/plots", "vmcore/ringbuffer", "vmcoreinfo",
}  # fmt: skip
# These touch the system; the first line of each says why.
EFFECTS = {
    "__main__", "actions", "backup", "cli", "config_files", "crash", "decrypt", "distribution",
    "dumps", "files", "hardware", "harvest", "host", "image/archive", "image/build",
    "image/drivers", "image/libraries", "image/module_tree", "image/packages", "image/programs",
    "kdump_service", "kernel_install", "kernels", "keyring", "keys", "listing", "load", "mounts",
    "notice", "output", "parts", "prepare", "progress", "pstore", "readback", "rehearsal",
    "report", "reservation", "restore", "run", "scriptlets", "speed", "state", "stick", "survey",
    "trial", "units", "vmcore/reader", "vmcore/symbols",
}  # fmt: skip

# Pure modules may import these. pathlib is for names of paths only.
ALLOWED = {
    "argparse", "array", "collections", "collections.abc", "configparser", "contextlib",
    "dataclasses", "datetime", "elftools", "fnmatch", "hashlib", "html", "io", "itertools",
    "json", "operator", "pathlib", "re", "shlex", "stat", "struct", "typing", "zlib",
}  # fmt: skip
# Methods of Path and of files that use the file system, and built-in functions that do.
CALLS = {
    "absolute", "chmod", "cwd", "exists", "expanduser", "glob", "hardlink_to", "home", "is_dir",
    "is_file", "is_symlink", "iterdir", "lstat", "mkdir", "open", "read_bytes", "read_text",
    "readlink", "rename", "resolve", "rglob", "rmdir", "stat", "symlink_to", "touch", "unlink",
    "write_bytes", "write_text",
}  # fmt: skip
NAMES = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}


def parsed(name: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{name}.py").read_text())


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The line and name of each import, with our own modules named as in the lists."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name.name}" for name in node.names]
        for name in names:
            top, *rest = name.split(".")
            if top != PACKAGE.name:
                yield node.lineno, name if isinstance(node, ast.Import) else str(node.module)  # type: ignore[attr-defined]
                continue
            places = ("/".join(rest[:length]) for length in range(len(rest), 0, -1))
            own = (place for place in places if (PACKAGE / f"{place}.py").is_file())
            yield node.lineno, f"{top}/{next(own, '__init__')}"  # type: ignore[attr-defined]


def violations(source: str) -> list[str]:
    """The lines with something that a pure module must not do."""
    found = []
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in NAMES:
                found.append(f"{node.lineno}: calls {name}()")
            case ast.Call(func=ast.Attribute(attr=name)) if name in CALLS:
                found.append(f"{node.lineno}: calls .{name}()")
    for line, name in imports(tree):
        top, _, own = name.partition("/")
        if not (own in PURE if own else {name, top.split(".")[0]} & ALLOWED):
            found.append(f"{line}: imports {name}")
    return found


def test_every_module_is_in_one_of_the_lists() -> None:
    there = {str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*.py")}
    assert there == PURE | EFFECTS
    assert not PURE & EFFECTS


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure(name: str) -> None:
    assert violations((PACKAGE / f"{name}.py").read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os", "import subprocess as s", "from time import time", "import os.path",
        "from tinykdump import config, run", "from tinykdump.host import Host",
        "from tinykdump.image import entries, build", "from tinykdump.image.build import draft",
        "import tinykdump.image.archive", "def f(p):\n return p.read_bytes()", "open('x')",
        "def f():\n import socket", "Path.home()",
    ],
)  # fmt: skip
def test_violations_are_found(source: str) -> None:
    assert violations(source)


def test_modules_with_effects_have_effects() -> None:
    """A module that has become pure belongs in the other list."""
    pure = {name for name in EFFECTS if not violations((PACKAGE / f"{name}.py").read_text())}
    assert pure == set()


def test_only_the_table_names_an_architecture() -> None:
    """All differences are values in the table."""
    names = re.compile(r"x86|amd64|arm64|aarch64|bzImage|HdrS", re.IGNORECASE)
    found = [
        (name, constant.value)
        for name in sorted((PURE | EFFECTS) - {"architecture"})
        for constant in code_texts(parsed(name))
        if names.search(str(constant.value))
    ]
    assert found == []


def code_texts(tree: ast.Module) -> Iterator[ast.Constant]:
    """The strings and bytes of a module, without docstrings."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            is_text = isinstance(child, ast.Constant) and isinstance(child.value, str | bytes)
            if is_text and not isinstance(node, ast.Expr):
                assert isinstance(child, ast.Constant)
                yield child
