# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors that a user sees: one line that says what failed and what to do."""


class TinykdumpError(Exception):
    """Something that tinykdump cannot do; exit status 1.

    ``message`` names the thing that is wrong, ``hint`` says what to do next.
    """

    exit_status = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})"


class UsageError(TinykdumpError):
    """An invalid command line or configuration; exit status 2."""

    exit_status = 2
