# SPDX-License-Identifier: GPL-2.0-or-later
"""Units of systemd: whether one starts at boot, from links on the host's disk; start and stop."""

from pathlib import Path

from tinykdump.host import Host
from tinykdump.run import run

# Where systemctl enable makes links, and where packages have theirs (systemd.unit(5)).
_PLACES = tuple(
    Path(top) / "systemd/system" for top in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)
_LINKS = (".wants", ".requires", ".upholds")


def is_enabled(host: Host, unit: str) -> bool:
    """Whether a unit starts at boot.

    As for systemctl is-enabled(1), some target or unit has to have a link to it, and it must not be
    masked.
    """
    targets = [
        directory
        for place in _PLACES
        for directory in host.children(place)
        if directory.suffix in _LINKS
    ]
    return not _is_masked(host, unit) and any(host.exists(each / unit) for each in targets)


def _is_masked(host: Host, unit: str) -> bool:
    files = (host.path(place / unit) for place in _PLACES)
    return any(file.is_symlink() and file.readlink() == Path("/dev/null") for file in files)


def start_instance(template: str, name: str) -> None:
    """Start the unit of a template NAME@.service for any name, and do not wait.

    Raises TinykdumpError, also where there is no systemd.
    """
    escaped = run(["systemd-escape", "--template", template, name], hint="install systemd")
    unit = escaped.stdout.decode().strip()
    run(["systemctl", "--no-block", "start", unit], hint=f"see systemctl status {unit}")


def stop(host: Host, *patterns: str) -> None:
    """Stop the units that run and have such a name, and wait for their end.

    Without systemd, none does: a manager that runs has its socket. Raises TinykdumpError.
    """
    if host.exists("/run/systemd/private"):
        run(["systemctl", "stop", *patterns], hint=f"see systemctl status {patterns[0]}")
