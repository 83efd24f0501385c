# SPDX-License-Identifier: GPL-2.0-or-later
"""What makedumpfile has to know of the kernel that it filters. Bytes in, bytes out; no I/O here."""

import re

# Linux 7.1 renamed a member of struct page, and its entry in vmcoreinfo with it (commit
# d50569612c29). A makedumpfile up to 1.7.9 then takes the second page of each compound page for
# one of user space and leaves it out, slabs among them, without a word. Both names are of equal
# length, so that its copy in the image can look for the other one.
_RENAMED = (7, 1)
_OLD, _NEW = b"OFFSET(page.compound_head)=\0", b"OFFSET(page.compound_info)=\0"


def for_kernel(program: bytes, kver: str) -> bytes:
    """The program as it has to be in the image of that kernel: one that knows it is left alone."""
    version = re.match(r"(\d+)\.(\d+)", kver)
    if not version or (int(version[1]), int(version[2])) < _RENAMED or _NEW in program:
        return program
    return program.replace(_OLD, _NEW)
