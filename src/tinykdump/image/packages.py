# SPDX-License-Identifier: GPL-2.0-or-later
"""Which package owns a file, asked through the rpm bindings."""

from collections.abc import Callable

from tinykdump.host import Host

try:
    import rpm
except ImportError:  # a system without rpm: nothing is recorded
    rpm = None

Owner = Callable[[str], str]


def owner_lookup(host: Host) -> Owner:
    """A function from a path to "name-epoch:version-release.arch", or "" where none owns it.

    Without the bindings or a database it always answers "". The database is only read.
    """
    database = rpm.expandMacro("%{_dbpath}") if rpm else ""
    if not database or not host.children(database):
        return lambda _path: ""
    transaction = rpm.TransactionSet(str(host.root))
    # Signatures of installed headers were checked when they were installed.
    transaction.setVSFlags(rpm._RPMVSF_NOSIGNATURES | rpm._RPMVSF_NODIGESTS)

    def owner(path: str) -> str:
        for header in transaction.dbMatch("basenames", path):
            return str(header["nevra"])
        return ""

    return owner
