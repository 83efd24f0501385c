# SPDX-License-Identifier: GPL-2.0-or-later
"""The distribution's own kdump service: whether systemd starts it at boot.

It starts after tinykdump.service, finds a crash kernel loaded and is content. Whenever it is
stopped or restarted, it unloads that crash kernel. Memory of crashkernel= that tinykdump has
returned is then missing.
"""

from pathlib import Path

from tinykdump.errors import TinykdumpError
from tinykdump.host import Host

# On Fedora and RHEL; on SUSE (both); on Debian.
_UNITS = ("kdump.service", "kdump-early.service", "kdump-tools.service")

# Where systemctl enable makes links, and where packages have theirs (systemd.unit(5)).
_PLACES = tuple(
    Path(top) / "systemd/system" for top in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)
_LINKS = (".wants", ".requires", ".upholds")


def enabled(host: Host) -> str:
    """The name of the unit that starts at boot, or "".

    As for systemctl is-enabled(1), some target or unit has to have a link to it, and it must not be
    masked.
    """
    targets = [
        directory
        for place in _PLACES
        for directory in host.children(place)
        if directory.suffix in _LINKS
    ]
    for unit in _UNITS:
        if not _is_masked(host, unit) and any(host.exists(each / unit) for each in targets):
            return unit
    return ""


def _is_masked(host: Host, unit: str) -> bool:
    files = (host.path(place / unit) for place in _PLACES)
    return any(file.is_symlink() and file.readlink() == Path("/dev/null") for file in files)


def refusal(unit: str) -> TinykdumpError:
    """Why nothing is loaded while ``unit`` is enabled."""
    return TinykdumpError(
        f"{unit} is enabled and would unload tinykdump's crash kernel",
        f"run systemctl disable --now {unit}, or set takeover = yes in /etc/default/tinykdump",
    )
