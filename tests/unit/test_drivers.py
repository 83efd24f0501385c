# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules as they stand in the image."""

import gzip
import lzma
import subprocess
from pathlib import Path

import pytest

from tests.fakehost import FakeHost
from tinykdump import drivers
from tinykdump.modinfo import ModInfo
from tinykdump.modules import Module

CONTENT = b"\x7fELF and so on"


@pytest.mark.parametrize(
    ("name", "content", "placed"),
    [
        ("x.ko.xz", lzma.compress(CONTENT), "x.ko.xz"),
        ("x.ko.gz", gzip.compress(CONTENT, mtime=0), "x.ko.gz"),
        ("x.ko", CONTENT, "x.ko.gz"),
        ("x.ko.zst", None, "x.ko.gz"),
    ],
)
def test_every_module_is_one_that_busybox_unpacks(
    fake: FakeHost, name: str, content: bytes | None, placed: str
) -> None:
    path = Path("/lib/modules/1") / name
    if content is None:
        content = subprocess.run(
            ["zstd", "-qc"], input=CONTENT, capture_output=True, check=True
        ).stdout
    fake.write(str(path), content)
    module = Module("x", path, ModInfo("1"))
    entry, order = drivers.entries(fake.host, [module], "y.a=1 x.b=2 x.c")
    assert entry.path == f"/lib/modules/{placed}"
    assert order.content.decode() == f"{entry.path} b=2 c\n"
    unpacked = subprocess.run(
        ["busybox", "xzcat" if placed.endswith("xz") else "zcat"],
        input=entry.content, capture_output=True, check=True,
    )  # fmt: skip
    assert unpacked.stdout == CONTENT
