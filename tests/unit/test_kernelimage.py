# SPDX-License-Identifier: GPL-2.0-or-later
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakehost import bzimage, unified
from tinykdump import kernelimage
from tinykdump.errors import TinykdumpError
from tinykdump.kernelimage import init_size

KERNEL = bzimage(release="6.1.0-1.fc43.x86_64") + b"code"


def test_a_bzimage() -> None:
    assert kernelimage.loadable(KERNEL) is KERNEL
    assert kernelimage.version(KERNEL) == "6.1.0-1.fc43.x86_64"
    assert kernelimage.version(bzimage()) == ""


def test_the_kernel_of_a_unified_image_has_no_padding() -> None:
    image = unified(osrel=b"ID=x", linux=KERNEL, initrd=b"0707")
    assert kernelimage.loadable(image) == KERNEL


@pytest.mark.parametrize(
    "content",
    [b"", b"MZ", b"MZ" + bytes(0x1000), unified(osrel=b"x"), unified(linux=b"Image"),
     unified(linux=KERNEL)[:0x170], b"MZ" + b"\xff" * 0x100],
)  # fmt: skip
def test_files_without_a_kernel(content: bytes) -> None:
    assert kernelimage.loadable(content) == b""


@given(st.binary(max_size=600), st.integers(0, 0x300))
def test_any_bytes(noise: bytes, where: int) -> None:
    image = unified(osrel=b"ID=x", linux=KERNEL)
    kernelimage.loadable(image[:where] + noise + image[where + len(noise) :])


def test_init_size() -> None:
    assert init_size(bzimage(init_size=0x1234567), "k") == 0x1234567
    assert init_size(bzimage(version=0x20A, init_size=5)[:0x264], "k") == 5


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"", "k is not a bzImage"),
        (bzimage()[:0x263], "k is not a bzImage"),
        (bzimage(magic=b"MZ\0\0"), "k is not a bzImage"),
        (bzimage(version=0x209), "k is too old"),
        (bzimage(init_size=0), "k is too old"),
    ],
)
def test_damaged_kernels_are_an_error(header: bytes, says: str) -> None:
    with pytest.raises(TinykdumpError, match=f"^{says}"):
        init_size(header, "k")
