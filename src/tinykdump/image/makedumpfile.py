# SPDX-License-Identifier: GPL-2.0-or-later
"""What old versions of makedumpfile cannot do. Pure: bytes in, values out."""

import re
from dataclasses import dataclass

from tinykdump import room
from tinykdump.architecture import is_unreadable

# Linux 7.1 renamed a member of struct page, and its entry in vmcoreinfo (commit d50569612c29).
# makedumpfile up to 1.7.9 then takes the second page of each compound page, slabs included, for
# user data, and leaves it out without a message. Both names have the same length, so the crash
# side can replace the old name in its copy of makedumpfile.
_OLD, _NEW = b"OFFSET(page.compound_head)=\0", b"OFFSET(page.compound_info)=\0"


def renamed(program: bytes) -> tuple[int, ...]:
    """The offsets of the old name in the program, in bytes; none if it knows the new name.

    Which name it needs depends on the kernel that crashes. That is not always the kernel that
    the image was built for, so src/crash/dump.sh looks into the vmcore.
    """
    if _NEW in program:
        return ()
    return tuple(match.start() for match in re.finditer(re.escape(_OLD), program))


# makedumpfile up to 1.7.6 takes free pages of Linux 6.12 and later for slabs, and dumps them (fixed
# by its commit 72c3414949bd). If it cannot read a kernel at all, the crash side copies the whole
# memory. Only the version in the program tells whether it has a fix.
_VERSION = re.compile(rb"makedumpfile: version ([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})")
_LEAVES_OUT_FREE_PAGES = (1, 7, 7)
_READS_ALL_KERNELS = (1, 7, 10)


@dataclass(frozen=True)
class Shortcoming:
    """What a version of makedumpfile does not leave out of a dump."""

    note: str  # for people
    kept: int  # the bits of the dump level that have no effect (makedumpfile(8), -d)


KEEPS_FREE_PAGES = Shortcoming(
    "makedumpfile before 1.7.7 also saves free memory of Linux 6.12 and later (install a newer "
    "one)",
    room.FREE_PAGES,
)
KEEPS_ALL = Shortcoming(
    "makedumpfile up to 1.7.9 cannot read this kernel: a dump has all memory (install a newer one)",
    room.ALL,
)


def shortcoming(program: bytes, kernel_config: str) -> Shortcoming | None:
    """What this makedumpfile cannot leave out of a dump of a kernel with that .config."""
    match = _VERSION.search(program)
    if not match:
        return None
    version = tuple(map(int, match.groups()))
    if version < _READS_ALL_KERNELS and is_unreadable(kernel_config):
        return KEEPS_ALL
    return KEEPS_FREE_PAGES if version < _LEAVES_OUT_FREE_PAGES else None
