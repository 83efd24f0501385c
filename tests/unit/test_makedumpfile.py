import shutil
from pathlib import Path

import pytest

from tinykdump.makedumpfile import for_kernel

OLD = b"x\0OFFSET(page.compound_head)=\0OFFSET(page.compound_head)=%ld\n\0"


@pytest.mark.parametrize("kver", ["6.12.1-amd64", "7.0.9", "7.0.12-200.fc44", "x", ""])
def test_kernels_that_it_knows(kver: str) -> None:
    assert for_kernel(OLD, kver) == OLD


@pytest.mark.parametrize("kver", ["7.1.0", "7.2.8-tinykdump", "7.10-rc1", "10.0"])
def test_a_member_of_struct_page_was_renamed(kver: str) -> None:
    made = for_kernel(OLD, kver)
    assert made == OLD.replace(b"head)=\0", b"info)=\0")
    assert for_kernel(made, kver) == made


def test_one_that_knows_both_names_is_left_alone() -> None:
    new = OLD + b"OFFSET(page.compound_info)=\0"
    assert for_kernel(new, "7.2.0") == new


def test_the_real_one_knows_one_of_the_names() -> None:
    real = Path(shutil.which("makedumpfile") or "").read_bytes()
    assert b"OFFSET(page.compound_info)=\0" in for_kernel(real, "7.2.0")
