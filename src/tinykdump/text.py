# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for a terminal. Values in, values out; no I/O here."""


def printable(text: str) -> str:
    """Text that anybody can have written, with nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def escaped(text: str) -> str:
    """A text with control characters as escapes like \\x1b, so that it cannot control a terminal.

    Line ends and tabs stay.
    """
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text
    )


def short(text: bytes | str, size: int) -> str:
    """One printable line of no more than that many characters."""
    if isinstance(text, bytes):
        text = text[: size + 1].decode(errors="replace")
    line = escaped(text[: size + 1]).replace("\n", "\\n").replace("\t", " ")
    return line if len(line) <= size else f"{line[: size - 1]}\u2026"
