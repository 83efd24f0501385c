"""Any value survives the shell that the crash side is run by."""

import re
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinykdump import config
from tinykdump.config import Target
from tinykdump.image.handover import Machine, render

DEFAULTS = config.resolve([], {})
# Whatever can stand in a file: all but NUL.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


def source(conf: str, *names: str) -> list[str]:
    """The values of ``names`` in busybox's shell once it has sourced ``conf``."""
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


def test_the_values() -> None:
    wanted = config.resolve(
        [], {"filesystems": "vfat exfat", "encrypt": "no", "script": "/root/x", "level": "1",
             "compression": "none", "keep": "2", "final_action": "halt", "wait": "5"}
    )  # fmt: skip
    conf = render(wanted, machine=Machine("m", "u"), key_time="", version="1.2")
    names = re.findall(r"^(\w+)=", conf, re.MULTILINE)
    assert dict(zip(names, source(conf, *names), strict=True)) == {
        "VERSION": "1.2", "MACHINE": "m", "ROOT_UUID": "u", "TARGET_TAG": "LABEL",
        "TARGET_VALUE": "TINYKDUMP", "FILESYSTEMS": "vfat exfat", "WAIT": "5", "KEEP": "2",
        "COMPRESSION": "", "LEVEL": "1", "KEY_TIME": "", "STALL": "300", "SCRIPT": "/script",
        "SCRIPT_WAIT": "60", "FINAL_ACTION": "halt",
    }  # fmt: skip
    defaults = render(DEFAULTS, machine=Machine("m", ""), key_time="20260102T030405", version="1")
    names = ["KEY_TIME", "SCRIPT", "COMPRESSION", "LEVEL", "KEEP"]
    assert source(defaults, *names) == ["20260102T030405", "", "-l", "31", "5"]
