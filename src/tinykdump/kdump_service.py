# SPDX-License-Identifier: GPL-2.0-or-later
"""The distribution's own kdump service: whether systemd starts it at boot.

kdump.service starts after tinykdump.service, which says so, finds a crash kernel loaded and is
content. Debian's kdump-tools.service starts before it. Whenever one of them is stopped or
restarted, it unloads the crash kernel. Memory of crashkernel= that tinykdump has returned is then
missing.
"""

from tinykdump import units
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host

# On Fedora and RHEL; on SUSE (both); on Debian.
_UNITS = ("kdump.service", "kdump-early.service", "kdump-tools.service")


def enabled(host: Host) -> str:
    """The name of the unit that starts at boot, or ""."""
    return next((unit for unit in _UNITS if units.is_enabled(host, unit)), "")


def refusal(unit: str) -> TinykdumpError:
    """Why nothing is loaded while ``unit`` is enabled."""
    return TinykdumpError(
        f"{unit} is enabled and would unload tinykdump's crash kernel",
        f"run systemctl disable --now {unit}, or set takeover = yes in /etc/default/tinykdump",
    )
