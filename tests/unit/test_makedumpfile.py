# SPDX-License-Identifier: GPL-2.0-or-later
import shutil
import subprocess
from pathlib import Path

import pytest

from tinykdump.image.makedumpfile import (
    KEEPS_ALL,
    KEEPS_FREE_PAGES,
    Shortcoming,
    renamed,
    shortcoming,
)

OLD = b"x\0OFFSET(page.compound_head)=\0OFFSET(page.compound_head)=%ld\n\0"


def test_the_offset_of_the_old_name_is_found() -> None:
    """Only the name that it looks for counts, not the one that it writes into a vmcoreinfo."""
    assert renamed(OLD) == (2,)
    assert renamed(b"") == ()


def test_a_program_with_both_names_needs_no_change() -> None:
    assert renamed(OLD + b"OFFSET(page.compound_info)=\0") == ()


def test_the_real_makedumpfile_has_one_of_the_names() -> None:
    real = Path(shutil.which("makedumpfile") or "").read_bytes()
    knows_both = b"OFFSET(page.compound_info)=\0" in real
    assert len(renamed(real)) == (0 if knows_both else 1)


# Debian 13's kernel for arm64, and one that it could also be.
WIDE = "CONFIG_ARM64_4K_PAGES=y\nCONFIG_ARM64_VA_BITS=52\n"
USUAL = "CONFIG_ARM64_4K_PAGES=y\nCONFIG_ARM64_VA_BITS=48\n"


@pytest.mark.parametrize(
    ("version", "usual", "wide"),
    [("1.7.6", KEEPS_FREE_PAGES, KEEPS_ALL), ("1.7.7", None, KEEPS_ALL),
     ("1.7.9", None, KEEPS_ALL), ("1.7.10", None, None), ("1.8.0", None, None),
     ("2.0.0", None, None)],
)  # fmt: skip
def test_what_a_version_cannot_leave_out(
    version: str, usual: Shortcoming | None, wide: Shortcoming | None
) -> None:
    said = f"x\0makedumpfile: version {version} (released on 1 Jan 2026)\n\0".encode()
    assert [shortcoming(said, each) for each in ("", USUAL, WIDE)] == [usual, usual, wide]


def test_the_real_makedumpfile_contains_its_version() -> None:
    real = Path(shutil.which("makedumpfile") or "")
    said = subprocess.run([real, "-v"], capture_output=True, check=True).stdout
    assert said.startswith(b"makedumpfile: version ")
    assert shortcoming(real.read_bytes(), "") == shortcoming(said, "")
    assert shortcoming(b"another program", WIDE) is None
