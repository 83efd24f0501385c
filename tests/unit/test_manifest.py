# SPDX-License-Identifier: GPL-2.0-or-later
import json
from dataclasses import replace

import pytest

from tinykdump.errors import TinykdumpError
from tinykdump.image import entries
from tinykdump.image.manifest import Input, Manifest, parse, plan_digest

MANIFEST = Manifest(
    kver="6.1.0-fake", kernel="/boot/vmlinuz", plan="0" * 64, modules=("a", "b"),
    inputs=(Input("/bin/busybox", "1" * 64, "busybox-1:1.35-1.x86_64"), Input("/é", "2" * 64)),
    key="F" * 40, target="LABEL=TINYKDUMP", compression="ZSTD", cmdline='a="b c"', margin=10,
    packed=1, unpacked=4096, drivers=8192, filesystems=("vfat", "ext4"),
    filesystem_bytes=(30000, 300000),
)  # fmt: skip


def test_round_trip() -> None:
    assert parse(MANIFEST.to_json(), "m") == MANIFEST


def changed(**values: object) -> str:
    return json.dumps(json.loads(MANIFEST.to_json()) | values)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "3", '"x"', MANIFEST.to_json()[:-9], changed(more=1),
        json.dumps({"kver": "x"}), changed(inputs=[{"source": "x"}]), changed(inputs=None),
        changed(inputs=[3]), changed(modules=3), changed(packed="1"), changed(unpacked=None),
        changed(kernel=3), changed(margin=[]), changed(cmdline=None), changed(filesystems=3),
        changed(filesystem_bytes=3), changed(filesystem_bytes=["x"]),
    ],
)  # fmt: skip
def test_damage(text: str) -> None:
    with pytest.raises(TinykdumpError, match=r"^m is damaged \(rebuild"):
        parse(text, "m")


def test_every_part_of_a_plan_changes_its_digest() -> None:
    planned = [entries.file("/a", b"x"), entries.link("/b", "a")]
    same = plan_digest([replace(entry, source="/elsewhere") for entry in planned], "GZIP")
    assert same == plan_digest(planned, "GZIP")
    others = {
        plan_digest(planned, "XZ"),
        plan_digest(planned[:1], "GZIP"),
        plan_digest([entries.file("/a", b"y"), planned[1]], "GZIP"),
        plan_digest([entries.file("/a", b"x", mode=0o600), planned[1]], "GZIP"),
        plan_digest([entries.file("/c", b"x"), planned[1]], "GZIP"),
    }
    assert len(others | {same}) == 6
