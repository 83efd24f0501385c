# SPDX-License-Identifier: GPL-2.0-or-later
"""Record what tinykdump reads of an installed kernel, for tests that run without it.

    python3 -m tests.record_kernel ROOT KVER >tests/records/NAME.json

Records the drivers of USB host controllers, the modules that configurations can name, and their
dependencies according to depmod. Leaves out tags and aliases that no test uses.
"""

import json
import lzma
import sys
from io import BytesIO
from pathlib import Path

from elftools.elf.elffile import ELFFile

WANTED = (
    "usb-storage", "uas", "sd_mod", "vfat", "exfat", "ext4", "xfs", "btrfs", "f2fs",
    "nls_cp437", "nls_ascii", "i6300esb",
)  # fmt: skip
TAGS = ("vermagic", "depends", "softdep", "firmware")


def modinfo(path: Path) -> list[str]:
    """The tags of a module that tests use."""
    data = path.read_bytes()
    elf = ELFFile(BytesIO(lzma.decompress(data) if path.suffix == ".xz" else data))
    section = elf.get_section_by_name(".modinfo")
    assert section is not None, path
    entries = section.data().decode().split("\0")
    tags = (*TAGS, "alias") if "usb/host" in str(path) else TAGS
    return [entry for entry in entries if entry.split("=", 1)[0] in tags]


def record(root: Path, kver: str) -> dict[str, object]:
    """The record of a kernel."""
    top = root / "lib/modules" / kver
    needs = {}
    for line in (top / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        needs[path] = others.split()
    wanted = {
        path for path in needs if Path(path).name.split(".ko")[0] in WANTED or "usb/host" in path
    }
    wanted |= {other for path in wanted for other in needs[path]}
    soft = [line.split() for line in (top / "modules.softdep").read_text().splitlines()]
    soft_names = {name for words in soft if words[:1] == ["softdep"] for name in words[2:]}
    aliases = [
        line
        for line in (top / "modules.alias").read_text().splitlines()
        if line.startswith("alias ") and line.split()[1] in soft_names
    ]
    providers = {line.split()[2].replace("_", "-") for line in aliases} | soft_names
    wanted |= {p for p in needs if Path(p).name.split(".ko")[0].replace("_", "-") in providers
               and "/crypto/" in p}  # fmt: skip
    builtin = (top / "modules.builtin.modinfo").read_text().split("\0")
    return {
        "kver": kver,
        "modules": {path: modinfo(top / path) for path in sorted(wanted)},
        "modules.builtin": (top / "modules.builtin").read_text().split(),
        "modules.builtin.modinfo": [entry for entry in builtin if ".alias=pci:" in entry],
        "modules.alias": aliases,
    }


if __name__ == "__main__":
    print(json.dumps(record(Path(sys.argv[1]), sys.argv[2]), indent=1))
