# SPDX-License-Identifier: GPL-2.0-or-later
import shutil
import subprocess
from pathlib import Path

import pytest

from tinykdump.image.makedumpfile import leaves_out_free_pages, renamed

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


@pytest.mark.parametrize(
    ("version", "does"),
    [("1.7.6", False), ("1.7.7", True), ("1.7.10", True), ("1.8.0", True), ("2.0.0", True)],
)
def test_versions_that_leave_out_free_pages(version: str, does: bool) -> None:
    said = f"x\0makedumpfile: version {version} (released on 1 Jan 2026)\n\0".encode()
    assert leaves_out_free_pages(said) == does


def test_the_real_makedumpfile_contains_its_version() -> None:
    real = Path(shutil.which("makedumpfile") or "")
    said = subprocess.run([real, "-v"], capture_output=True, check=True).stdout
    assert said.startswith(b"makedumpfile: version ")
    assert leaves_out_free_pages(real.read_bytes()) == leaves_out_free_pages(said)
    assert leaves_out_free_pages(b"another program")
