# SPDX-License-Identifier: GPL-2.0-or-later
import gzip
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakehost import bzimage, unified
from tinykdump import kernelimage
from tinykdump.architecture import AARCH64
from tinykdump.errors import TinykdumpError
from tinykdump.kernelimage import init_size

KERNEL = bzimage(release="6.1.0-1.fc43.x86_64") + b"code"

# The header of Debian 13's kernel for arm64 (vmlinuz-6.12.117+deb13-arm64), and a piece of its
# data.
ARM64 = bytes.fromhex(
    "4d5a40fa3b9074140000000000000000" "00005002000000000a00000000000000"
    "00000000000000000000000000000000" "000000000000000041524d6440000000"
) + b"code\0%s version %s (debian\0Linux version 6.12.117+deb13-arm64 (x@y)"  # fmt: skip
# Without the time: the workers of pytest have to see the same parameters.
PACKED = gzip.compress(ARM64, mtime=0)


def packed(marked: bytes) -> bytes:
    """What "zstd" unpacks here."""
    if not marked.startswith(b"zstd:"):
        raise TinykdumpError("zstd: not zstd", "")
    return marked.removeprefix(b"zstd:")


def loadable(content: bytes) -> bytes:
    return kernelimage.loadable(content, packed)


def zboot(payload: bytes, how: bytes) -> bytes:
    """As drivers/firmware/efi/libstub/zboot-header.S lays it out."""
    header = struct.pack("<4s4sII8x32s", b"MZ\0\0", b"zimg", 0x1000, len(payload), how)
    return header.ljust(0x1000, b"\0") + payload + b"more code"


def test_a_bzimage() -> None:
    assert loadable(KERNEL) is KERNEL
    assert kernelimage.version(KERNEL) == "6.1.0-1.fc43.x86_64"
    assert kernelimage.version(bzimage()) == ""


def test_the_kernel_of_a_unified_image_has_no_padding() -> None:
    image = unified(osrel=b"ID=x", linux=KERNEL, initrd=b"0707")
    assert loadable(image) == KERNEL


@pytest.mark.parametrize(
    "content",
    [b"", b"MZ", b"MZ" + bytes(0x1000), unified(osrel=b"x"), unified(linux=b"Image"),
     unified(linux=KERNEL)[:0x170], b"MZ" + b"\xff" * 0x100],
)  # fmt: skip
def test_files_without_a_kernel(content: bytes) -> None:
    assert loadable(content) == b""


@given(st.binary(max_size=600), st.integers(0, 0x300))
def test_any_bytes(noise: bytes, where: int) -> None:
    image = unified(osrel=b"ID=x", linux=KERNEL)
    loadable(image[:where] + noise + image[where + len(noise) :])


def test_an_image_of_arm64_has_its_release_in_the_banner() -> None:
    assert loadable(ARM64) is ARM64
    assert kernelimage.architecture(ARM64, "k") is AARCH64
    assert kernelimage.version(ARM64) == "6.12.117+deb13-arm64"
    assert kernelimage.version(ARM64[:0x40]) == ""
    assert init_size(ARM64[:0x40], "k") == 37 << 20


@pytest.mark.parametrize(
    "content",
    [PACKED, zboot(PACKED, b"gzip"), zboot(b"zstd:" + ARM64, b"zstd"),
     zboot(b"zstd:" + ARM64, b"zstd22"), unified(linux=ARM64),
     unified(linux=zboot(PACKED, b"gzip"))],
    ids=["Image.gz", "gzip", "zstd", "zstd22", "unified", "unified-zboot"],
)  # fmt: skip
def test_a_packed_image_is_unpacked(content: bytes) -> None:
    assert loadable(content) == ARM64


@pytest.mark.parametrize(
    "content",
    [PACKED[:-1], gzip.compress(b"no kernel", mtime=0), b"\x1f\x8b",
     zboot(PACKED, b"lzo"), zboot(ARM64, b"zstd"), zboot(b"", b"gzip"),
     zboot(PACKED, b"gzip")[:0x1010], zboot(b"", b"")[:0x30]],
)  # fmt: skip
def test_a_damaged_packed_image_has_no_kernel(content: bytes) -> None:
    assert loadable(content) == b""


def test_what_unpacks_to_more_than_any_kernel_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernelimage, "_LARGEST", len(ARM64) - 1)
    assert loadable(PACKED) == b""


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
        (ARM64[:0x10] + bytes(8) + ARM64[0x18:], "k is too old"),
    ],
)
def test_damaged_kernels_are_an_error(header: bytes, says: str) -> None:
    with pytest.raises(TinykdumpError, match=f"^{says}"):
        init_size(header, "k")
