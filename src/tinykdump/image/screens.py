# SPDX-License-Identifier: GPL-2.0-or-later
"""Leaves the drivers of the firmware's screen out of the crash kernel. Values in, values out.

Where they are built in (Fedora, RHEL), each of them keeps a copy of the screen in memory, 4 bytes
for each of its points (drivers/gpu/drm/drm_fbdev_shmem.c): 8 MiB at 1080p, 32 MiB at 4K. The kernel
can leave out initcalls by their names (initcall_blacklist= in kernel-parameters.txt), which it
looks up in its symbol table. All lists on its command line count.
"""

import re
from collections.abc import Container
from dataclasses import dataclass

# Each has module_platform_driver(NAME_platform_driver), in drivers/gpu/drm/sysfb since Linux 6.16.
_DRIVERS = ("simpledrm", "efidrm", "vesadrm", "corebootdrm")
_INITCALL = "{}_platform_driver_init"
# With link-time optimization the initcall is a function around it (include/linux/init.h).
_IN_TABLE = r"^[0-9a-f]+ [tT] ((?:__initstub__\w+_)?{}\w*)$"


@dataclass(frozen=True)
class Screens:
    """What becomes of the built-in drivers of a kernel."""

    left_out: tuple[str, ...]  # initcalls
    stays: bool  # whether a driver cannot be left out


def screens(built_in: Container[str], config: str, symbols: str) -> Screens:
    """Decide by the names of built-in modules, a .config and a symbol table (as System.map).

    Empty texts are not known: then the initcall is called as it is in the source.
    """
    left_out: list[str] = []
    stays = False
    for driver in _DRIVERS:
        if driver not in built_in:
            continue
        usual = _INITCALL.format(driver)
        found = re.findall(_IN_TABLE.format(usual), symbols, re.MULTILINE)
        names = found if symbols else [usual]
        if not names or (config and "CONFIG_KALLSYMS=y" not in config.splitlines()):
            stays = True
        else:
            left_out += names
    return Screens(tuple(left_out), stays)


def parameters(found: Screens) -> tuple[str, ...]:
    """For the crash kernel's command line."""
    return (f"initcall_blacklist={','.join(found.left_out)}",) if found.left_out else ()
