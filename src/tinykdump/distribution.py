# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a distribution has a package that is missing, for hints."""

import re

from tinykdump.host import Host

# Packages that RHEL and its kin have only in EPEL, the additional repository of Fedora, and the
# first release of it that has them.
_EPEL = {"busybox": "10.2", "python3-gnupg": "10.2"}


def install(host: Host, package: str) -> str:
    """The hint to install a package, which may go on with what it is called elsewhere."""
    release = host.text("/etc/os-release") or host.text("/usr/lib/os-release") or ""
    first = _EPEL.get(package.split(" ", 1)[0])
    if first and re.search(r"^ID(_LIKE)?=.*\brhel\b", release, re.MULTILINE):
        name = package.split(" ", 1)[0]
        return f"install {name} from EPEL {first} or later: dnf install epel-release {name}"
    return f"install {package}"
