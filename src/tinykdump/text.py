# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for a terminal. Values in, values out; no I/O here."""


def printable(text: str) -> str:
    """Text that anybody can have written, with nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)
