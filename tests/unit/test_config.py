# SPDX-License-Identifier: GPL-2.0-or-later
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tinykdump import config
from tinykdump.config import ITEMS, Config, Target, parse_file, resolve
from tinykdump.errors import UsageError


def read(text: str) -> Config:
    return resolve([parse_file(text, "file")], {})


def test_every_field_of_config_has_an_item() -> None:
    assert [item.key for item in ITEMS] == [field.name for field in fields(Config)]


def test_an_empty_configuration_gives_the_defaults() -> None:
    assert resolve([], {}) == Config(
        target=Target("LABEL", "TINYKDUMP"), filesystems=("auto",), wait=60, keep=5, level=31,
        compression="lzo", encrypt=True, key="", script="", script_wait=60, stall=300,
        final_action="reboot", kernel="installed", modules=(), margin=10, takeover=False, append="",
        efi_log=True,
        efi_pstore=False, on_install=False,
    )  # fmt: skip


def test_the_installed_file_shows_the_defaults() -> None:
    text = config.default_file()
    assert read(text) == resolve([], {})
    uncommented = "\n".join(
        line.removeprefix("#") for line in text.splitlines() if not line.startswith("# ")
    )
    assert set(parse_file(uncommented, "file")) == {item.key for item in ITEMS}
    assert read(uncommented) == resolve([], {})


def test_the_package_installs_that_file() -> None:
    installed = Path(__file__).parents[2] / "src/default/tinykdump"
    assert installed.read_text() == config.default_file()


GOOD: list[tuple[str, str, str, Any]] = [
    ("dump", "target", "UUID=12AB-34CD", Target("UUID", "12AB-34CD")),
    ("dump", "filesystems", "vfat, ext4 vfat", ("vfat", "ext4")),
    ("dump", "wait", "3600", 3600),
    ("dump", "keep", "3", 3),
    ("dump", "level", "0", 0),
    ("dump", "compression", "zstd", "zstd"),
    ("dump", "encrypt", "No", False),
    ("dump", "key", "me@example.org", "me@example.org"),
    ("dump", "script", "/root/before dump", "/root/before dump"),
    ("dump", "script_wait", "1", 1),
    ("dump", "stall", "60", 60),
    ("dump", "final_action", "poweroff", "poweroff"),
    ("image", "kernel", "/boot/vmlinuz", "/boot/vmlinuz"),
    ("image", "modules", "ast,usbnet", ("ast", "usbnet")),
    ("crashkernel", "margin", "400", 400),
    ("crashkernel", "takeover", "on", True),
    ("crashkernel", "append", "a=1 b", "a=1 b"),
    ("crashkernel", "efi_log", "no", False),
    ("crashkernel", "efi_pstore", "yes", True),
    ("rehearsal", "on_install", "yes", True),
]


@pytest.mark.parametrize(("section", "key", "text", "value"), GOOD)
def test_values_of_keys(section: str, key: str, text: str, value: object) -> None:
    assert getattr(read(f"[{section}]\n{key} = {text}  # why\n"), key) == value


def test_every_key_is_tested() -> None:
    assert [(section, key) for section, key, _, _ in GOOD] == [(i.section, i.key) for i in ITEMS]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[dump]\nwiat = 3", ["file", "[dump]", "wiat", "no such key", "wait"]),
        ("[dmup]\nwait = 3", ["[dmup]", "no such", "dump, image, crashkernel"]),
        ("[dmup]", ["[dmup]", "no such section", "dump, image, crashkernel"]),
        ("[DEFAULT]\nwait = 3", ["[DEFAULT]", "no such"]),
        ("[image]\nwait = 3", ["[image] wait", "no such key", "modules"]),
        ("wait = 3", ["file", "no section headers", "write [section]"]),
        ("[dump]\nwait", ["file", "wait"]),
        ("[dump]\nwait = 3\nwait = 4", ["file", "wait", "already exists"]),
        ("[dump]\nwait = 3\n[dump]\nkeep = 4", ["file", "dump", "already exists"]),
        ("[dump]\nwait = 0", ["[dump] wait", "'0'", "1 to 3600"]),
        ("[dump]\nwait = 3601", ["1 to 3600"]),
        ("[dump]\nwait = \u0663", ["1 to 3600"]),
        ("[dump]\nwait = 1 0", ["1 to 3600"]),
        ("[dump]\nkeep = -1", ["0 to 9999"]),
        ("[dump]\nlevel = 32", ["0 to 31"]),
        ("[dump]\nencrypt = maybe", ["[dump] encrypt", "'maybe'", "yes or no"]),
        ("[dump]\nencrypt =", ["yes or no"]),
        ("[dump]\ncompression = lz4", ["none, zlib, lzo, snappy, zstd"]),
        ("[dump]\nfinal_action = halt -f", ["reboot, poweroff, halt"]),
        ("[dump]\ntarget = /dev/sdb1", ["LABEL=name or UUID=id"]),
        ("[dump]\ntarget = LABEL=a'b", ["LABEL=name or UUID=id"]),
        ("[dump]\ntarget = LABEL=", ["LABEL=name or UUID=id"]),
        ("[dump]\nkey = keys/mine.asc", ["[dump] key", "absolute path", "root's keyring"]),
        ("[dump]\nfilesystems = vfat ntfs", ["one or more of auto, vfat"]),
        ("[dump]\nfilesystems =", ["one or more of auto, vfat"]),
        ("[dump]\nscript = save.sh", ["absolute path"]),
        ("[dump]\nscript = /save\n .sh", ["[dump] script", "one line"]),
        ("[dump]\nkey = a\n b", ["one line"]),
        ("[image]\nkernel = stock", ["'stock'", "installed, small, or the absolute path"]),
        ("[image]\nmodules = ../../evil", ["'../../evil'", "not a module name"]),
        ("[crashkernel]\nmargin = 10%", ["0 to 400"]),
        ("[crashkernel]\nappend = a\n b", ["one line"]),
    ],
)
def test_invalid_values_are_refused(text: str, says: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        read(text)
    message = str(caught.value)
    assert [word for word in says if word not in message] == []
    assert "\n" not in message


def test_later_files_and_then_options_win() -> None:
    files = [{"wait": "1", "keep": "1", "level": "1"}, {"keep": "2", "level": "2"}]
    found = resolve(files, {"level": "3"})
    assert (found.wait, found.keep, found.level) == (1, 2, 3)


def test_the_error_names_the_bad_option() -> None:
    with pytest.raises(UsageError, match=r"option for modules.*not a module name"):
        resolve([], {"modules": "a;b"})
