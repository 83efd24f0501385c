"""The KUnit suite of the series, run by the kernel that has it built in."""

import re
from dataclasses import replace
from pathlib import Path

from tests.kernel.pstore.machine import Hardware, Machine


def test_suite(patched: Hardware, tmp_path: Path) -> None:
    hardware = replace(patched, command_line="kunit.enable=1 kunit.autorun=1")
    with Machine(hardware, tmp_path) as machine:
        machine.boot("normal")
        log = machine.run("dmesg")
    assert re.search(r"^(\[[ 0-9.]+\] )?ok \d+ pstore_kexec_console$", log, re.MULTILINE), log
