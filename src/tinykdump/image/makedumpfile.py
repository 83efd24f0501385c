# SPDX-License-Identifier: GPL-2.0-or-later
"""What makedumpfile does not know of newer kernels. Bytes in, values out; no I/O here."""

import re

# Linux 7.1 renamed a member of struct page, and its entry in vmcoreinfo with it (commit
# d50569612c29). A makedumpfile up to 1.7.9 then takes the second page of each compound page for
# one of user space and leaves it out, slabs among them, without a word. Both names are of equal
# length, so that its copy in the image can be made to look for the other one.
_OLD, _NEW = b"OFFSET(page.compound_head)=\0", b"OFFSET(page.compound_info)=\0"


def renamed(program: bytes) -> tuple[int, ...]:
    """Where, in bytes from its start, the program has the old name; nowhere if it knows the new.

    Which one it has to look for is up to the kernel that crashes. That is not always the one
    that the image is of, so src/crash/lib.sh decides, when there is a vmcore to look into.
    """
    if _NEW in program:
        return ()
    return tuple(match.start() for match in re.finditer(re.escape(_OLD), program))


# Up to 1.7.6 it takes the free pages of Linux 6.12 and later for slabs, and keeps them (its commit
# 72c3414949bd). That is in its code alone: of what can be looked for, only the version tells.
_VERSION = re.compile(rb"makedumpfile: version ([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})")
_LEAVES_OUT_FREE_PAGES = (1, 7, 7)


def leaves_out_free_pages(program: bytes) -> bool:
    """Whether it does so with the free pages of the kernels that are of today."""
    match = _VERSION.search(program)
    return not match or tuple(map(int, match.groups())) >= _LEAVES_OUT_FREE_PAGES
