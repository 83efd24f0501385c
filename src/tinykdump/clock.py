# SPDX-License-Identifier: GPL-2.0-or-later
"""Times: in the local zone for people, ISO 8601 with its zone for programs. No I/O here."""

import re
from datetime import UTC, datetime

# Names, offsets and rules of a zone, as the variable TZ has them in POSIX (tzset(3)).
_ZONE = re.compile(r"[A-Za-z0-9<>+,./:-]{1,100}")


def local(seconds: float) -> datetime:
    """A time in seconds since 1970, in the local zone."""
    return datetime.fromtimestamp(seconds, UTC).astimezone()


def shown(time: datetime) -> str:
    """A time for people: 2026-11-26 15:04:05 CET."""
    return f"{time:%Y-%m-%d %H:%M:%S %Z}"


def zone_of_hardware(adjtime: str, localtime: str) -> str:
    """The zone whose local time the hardware clock has, in the form of TZ; empty: UTC.

    ``adjtime`` is the text of /etc/adjtime, whose third line says LOCAL then (adjtime_config(5)).
    ``localtime`` is that of /etc/localtime, whose last line is the zone (tzfile(5)).
    """
    if adjtime.splitlines()[2:3] != ["LOCAL"]:
        return ""
    zone = localtime.rpartition("\n")[2]
    return zone if _ZONE.fullmatch(zone) else ""
