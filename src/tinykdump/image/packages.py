# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the rpm database which package owns a file."""

from collections.abc import Callable

from tinykdump.host import Host

try:
    import rpm
except ImportError:  # a system without rpm: no packages are recorded
    rpm = None

Owner = Callable[[str], str]


def owner_lookup(host: Host) -> Owner:
    """A function from a path to "name-epoch:version-release.arch", or "" if no package owns it.

    Without the bindings or a database it always returns "". The database is only read.
    """
    database = rpm.expandMacro("%{_dbpath}") if rpm else ""
    if not database or not host.children(database):
        return lambda _path: ""
    transaction = rpm.TransactionSet(str(host.root))
    # rpm checked the signatures when it installed the packages.
    transaction.setVSFlags(rpm._RPMVSF_NOSIGNATURES | rpm._RPMVSF_NODIGESTS)

    def owner(path: str) -> str:
        for header in transaction.dbMatch("basenames", path):
            return str(header["nevra"])
        return ""

    return owner
