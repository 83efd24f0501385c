# SPDX-License-Identifier: GPL-2.0-or-later
"""The table lists exactly the files that are handed over, and any value survives the shell."""

import re
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import elfwriter
from tests.fakehost import FakeHost
from tests.keyring import Keyring
from tinykdump import config
from tinykdump.config import Target
from tinykdump.image import build
from tinykdump.image.handover import CONFIGURATION, FILES, SCRIPT, Machine, render
from tinykdump.image.programs import LIBRARY
from tinykdump.keys import machine_key

CRASH_SIDE = Path(__file__).parents[2] / "src/crash"

DEFAULTS = config.resolve([], {})
# All characters but NUL.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


def source(conf: str, *names: str) -> list[str]:
    """The values of ``names`` after busybox's shell has sourced ``conf``."""
    values = " ".join(f'"${name}"' for name in names)
    script = f". /dev/stdin; printf '%s\\0' {values}"
    done = subprocess.run(["busybox", "sh", "-euc", script], input=conf.encode(),
                          capture_output=True, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().split("\0")[:-1]


@settings(max_examples=50)
@given(TEXT, TEXT, TEXT)
def test_any_value_survives(machine: str, root: str, label: str) -> None:
    conf = render(replace(DEFAULTS, target=Target("LABEL", label)),
                  machine=Machine(machine, root), key_time="", version="1")  # fmt: skip
    assert source(conf, "MACHINE", "ROOT_UUID", "TARGET_VALUE") == [machine, root, label]


@pytest.mark.parametrize("value", ["", "'", "$(touch /x)", "a\nb", "\\", "`x`", "a'b\"c", " ", "é"])
def test_odd_values_survive(value: str) -> None:
    conf = render(DEFAULTS, machine=Machine(value, ""), key_time="", version="1")
    assert source(conf, "MACHINE") == [value]


def test_values_in_the_configuration() -> None:
    wanted = config.resolve(
        [], {"filesystems": "vfat exfat", "encrypt": "no", "script": "/root/x", "level": "1",
             "compression": "none", "keep": "2", "final_action": "halt", "wait": "5"}
    )  # fmt: skip
    conf = render(wanted, machine=Machine("m", "u", "CET-1CEST,M3.5.0"), key_time="",
                  version="1.2")  # fmt: skip
    names = re.findall(r"^(\w+)=", conf, re.MULTILINE)
    assert dict(zip(names, source(conf, *names), strict=True)) == {
        "VERSION": "1.2", "MACHINE": "m", "ROOT_UUID": "u",
        "CLOCK_ZONE": "CET-1CEST,M3.5.0", "TARGET_TAG": "LABEL",
        "TARGET_VALUE": "TINYKDUMP", "FILESYSTEMS": "vfat exfat", "WAIT": "5", "KEEP": "2",
        "COMPRESSION": "", "LEVEL": "1", "KEY_TIME": "", "OCB": "", "STALL": "300",
        "SCRIPT": "/script", "SCRIPT_WAIT": "60", "FINAL_ACTION": "halt",
    }  # fmt: skip
    defaults = render(DEFAULTS, machine=Machine("m", ""), key_time="20260102T030405", version="1")
    names = ["KEY_TIME", "SCRIPT", "COMPRESSION", "LEVEL", "KEEP"]
    assert source(defaults, *names) == ["20260102T030405", "", "-l", "31", "5"]


@pytest.mark.parametrize(
    ("key", "fips", "option"),
    [("", "0", "--force-ocb"), ("", "1", ""), ("/root/key.asc", "0", "")],
)
def test_ocb_is_for_the_machines_own_key(
    fake: FakeHost, keys: Keyring, key: str, fips: str, option: str
) -> None:
    """Of another key, gpg itself sees whether its owner can decrypt it."""
    fake.write("/usr/bin/gpg", elfwriter.program() + b"\0force-ocb\0", 0o755)
    fake.write("/root/key.asc", keys.public("good@example.org"))
    fake.write("/proc/sys/crypto/fips_enabled", f"{fips}\n")
    machine_key(fake.host, create=True)
    plan = build.draft(fake.host, config.resolve([], {"key": key}), fake.kernel()).entries
    (conf,) = (entry.content.decode() for entry in plan if entry.path == CONFIGURATION)
    assert source(conf, "OCB") == [option]


@pytest.mark.parametrize(
    ("adjtime", "zone"),
    [("0.0 0 0.0\n0\nLOCAL\n", "CET-1CEST,M3.5.0,M10.5.0/3"), ("0.0 0 0.0\n0\nUTC\n", ""),
     ("LOCAL\n", ""), (None, "")],
)  # fmt: skip
def test_a_hardware_clock_in_local_time(fake: FakeHost, adjtime: str | None, zone: str) -> None:
    """As beside Windows. /etc/localtime is a link to a file like this."""
    if adjtime:
        fake.write("/etc/adjtime", adjtime)
    rules = b"TZif2\0\xff\n\0\0\nCET-1CEST,M3.5.0,M10.5.0/3\n"
    fake.write("/usr/share/zoneinfo/Europe/Berlin", rules)
    fake.link("/etc/localtime", "../usr/share/zoneinfo/Europe/Berlin")
    assert build._machine(fake.host).clock_zone == zone
    fake.write("/usr/share/zoneinfo/Europe/Berlin", "TZif2\n$(reboot) x\n")
    assert build._machine(fake.host).clock_zone == ""


def test_src_crash_reads_the_files_of_the_table() -> None:
    """It gets the path of the script from the configuration."""
    texts = [(CRASH_SIDE / name).read_text() for name in ("init", "check", *LIBRARY)]
    named = set(re.findall(r"/(?:etc|lib)/[a-z.]+[a-z]", "".join(texts)))
    assert named == {*FILES, "/lib/tinykdump.sh"} - {SCRIPT}


def test_an_image_has_the_files_of_the_table(fake: FakeHost, keys: Keyring) -> None:
    """Files of the image that are not copies of the host's are in the table."""
    fake.write("/root/key.asc", keys.public("good@example.org"))
    fake.write("/root/script", "#!/bin/sh\n", 0o755)
    wanted = config.resolve([], {"key": "/root/key.asc", "script": "/root/script"})
    plan = build.draft(fake.host, wanted, fake.kernel()).entries
    made = {entry.path for entry in plan if stat.S_ISREG(entry.mode) and not entry.source}
    assert made | {SCRIPT} == {*FILES, "/init", "/lib/tinykdump.sh"}
    assert SCRIPT in {entry.path for entry in plan}


def test_hacking_lists_the_files_of_the_table() -> None:
    text = (CRASH_SIDE.parents[1] / "HACKING.md").read_text()
    assert [name for name in FILES if f"`{name}`" not in text] == []
