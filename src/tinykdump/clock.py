# SPDX-License-Identifier: GPL-2.0-or-later
"""Times: in the local zone for people, ISO 8601 with its zone for programs. No I/O here."""

from datetime import UTC, datetime


def local(seconds: float) -> datetime:
    """A time in seconds since 1970, in the local zone."""
    return datetime.fromtimestamp(seconds, UTC).astimezone()


def shown(time: datetime) -> str:
    """A time for people: 2026-11-26 15:04:05 CET."""
    return f"{time:%Y-%m-%d %H:%M:%S %Z}"
