# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a restored vmcore with makedumpfile and drgn."""

import struct
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import drgn

from tests.vm.service import PAGE

# max_mapnr in makedumpfile's disk_dump_header (diskdump_mod.h in its sources).
_MAX_MAPNR = 440


def log(vmcore: Path) -> str:
    """The kernel log in the memory of the crashed machine."""
    with tempfile.TemporaryDirectory() as directory:
        text = Path(directory) / "dmesg"
        command = ["makedumpfile", "--dump-dmesg", str(vmcore), str(text)]
        subprocess.run(command, check=True, capture_output=True)
        return text.read_text(errors="replace")


def has_process(vmcore: Path, name: str, *, memory_mib: int, first: int = 0) -> bool:
    """Whether a task of that name, which has 15 characters, is in the machine's memory.

    Searches all pages, because drgn finds no tasks without debugging information. In
    task_struct.comm, unlike in the log, a NUL follows the name.
    """
    if len(name) != 15:
        raise ValueError(f"{name!r} would not fill task_struct.comm")
    return has(vmcore, name.encode() + b"\0", memory_mib=memory_mib, first=first)


def has(vmcore: Path, pattern: bytes, *, memory_mib: int, first: int = 0) -> bool:
    """Whether these bytes, all in one page, are in the machine's memory from ``first`` on."""
    program = drgn.Program()
    program.set_core_dump(vmcore)
    for address in range(first, first + (memory_mib << 20), PAGE):
        try:
            page = program.read(address, PAGE, physical=True)
        except drgn.FaultError:  # a page that was left out, or no memory
            continue
        if pattern in page:
            return True
    return False


def end_of_memory(vmcore: Path) -> int:
    """Where the memory that a vmcore describes ends, in bytes."""
    with vmcore.open("rb") as file:
        file.seek(_MAX_MAPNR)
        (pages,) = struct.unpack("<I", file.read(4))
    return int(pages) * PAGE


def pages(vmcore: Path, *, memory_mib: int) -> int:
    """The number of pages that drgn can read, counted in another process, which may crash."""
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(_pages, vmcore, memory_mib).result()


def _pages(vmcore: Path, memory_mib: int) -> int:
    program = drgn.Program()
    program.set_core_dump(vmcore)
    found = 0
    for address in range(0, memory_mib << 20, PAGE):
        with suppress(drgn.FaultError):
            program.read(address, PAGE, physical=True)
            found += 1
    return found
