import shutil
from pathlib import Path

from tinykdump.makedumpfile import renamed

OLD = b"x\0OFFSET(page.compound_head)=\0OFFSET(page.compound_head)=%ld\n\0"


def test_a_member_of_struct_page_was_renamed() -> None:
    """What it writes into a vmcoreinfo of its own is not what it looks for."""
    assert renamed(OLD) == (2,)
    assert renamed(b"") == ()


def test_one_that_knows_both_names_is_left_alone() -> None:
    assert renamed(OLD + b"OFFSET(page.compound_info)=\0") == ()


def test_the_real_one_knows_one_of_the_names() -> None:
    real = Path(shutil.which("makedumpfile") or "").read_bytes()
    knows_both = b"OFFSET(page.compound_info)=\0" in real
    assert len(renamed(real)) == (0 if knows_both else 1)
