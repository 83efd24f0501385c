#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Draw the modules of src/tinykdump in the order of their imports: tools/architecture.py [--check].

Writes the drawing into HACKING.md, between two marks. With --check it writes nothing, and exits
with status 1 if the drawing in HACKING.md does not match the code.
"""

import argparse
import ast
import sys
import textwrap
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "src/tinykdump"
DOCUMENT = CHECKOUT / "HACKING.md"
START = "<!-- tools/architecture.py writes from here -->\n"
END = "<!-- to here -->\n"
WIDTH = 90


def sources(package: Path) -> dict[str, str]:
    """Module -> source, for all modules of a package: "cli", "image.archive".

    A subpackage has its own name; the package itself is "__init__".
    """
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[-1] == "__init__" and len(parts) > 1:
            parts = parts[:-1]
        found[".".join(parts)] = path.read_text()
    return found


def imported(text: str, package: str, modules: Mapping[str, str]) -> Iterator[str]:
    """The modules that a module imports anywhere in its source. Raises ValueError for a relative
    import, which the code does not use."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: a relative import")
            # What follows "import" is a module, or a name in the one before it.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            top, _, rest = name.partition(".")
            while top == package and rest and rest not in modules:
                rest = rest.rpartition(".")[0]
            if top == package:
                yield rest or "__init__"


def floors(modules: Mapping[str, str], package: str) -> list[list[str]]:
    """The modules, floor by floor, the highest first. Each imports only modules on lower floors,
    and at least one on the next lower floor. Raises graphlib.CycleError for circular imports."""
    uses = {name: {*imported(text, package, modules)} - {name} for name, text in modules.items()}
    height: dict[str, int] = {}
    for name in TopologicalSorter(uses).static_order():
        height[name] = 1 + max((height[each] for each in uses[name]), default=-1)
    return [
        sorted(name for name in height if height[name] == floor)
        for floor in range(max(height.values()), -1, -1)
    ]


def picture(rows: list[list[str]]) -> str:
    """The floors, the highest first, as lines of text."""
    line = "-" * WIDTH
    drawn = [line]
    for row in rows:
        drawn += [*textwrap.wrap("   ".join(row), WIDTH - 2, break_on_hyphens=False), line]
    return "".join(f"    {text if text == line else f' {text}'}\n" for text in drawn)


def put(document: str, drawn: str) -> str:
    """The document with that drawing between its marks. Raises ValueError if a mark is missing."""
    before, rest = document.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{drawn}\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args()
    there = DOCUMENT.read_text()
    wanted = put(there, picture(floors(sources(PACKAGE), PACKAGE.name)))
    if there == wanted:
        return 0
    if options.check:
        print("HACKING.md: the drawing does not match the code (run tools/architecture.py)",
              file=sys.stderr)  # fmt: skip
        return 1
    DOCUMENT.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
