# SPDX-License-Identifier: GPL-2.0-or-later
"""The KUnit suite of the series, run by the kernel that has it built in."""

import re
from pathlib import Path

from tests.kernel.pstore.machine import running
from tests.vmtest.machine import Machine


def test_suite(patched: Machine, tmp_path: Path) -> None:
    with running(patched.with_append("kunit.enable=1", "kunit.autorun=1"), tmp_path) as machine:
        machine.boot("normal")
        log = machine.run("dmesg")
    assert re.search(r"^(\[[ 0-9.]+\] )?ok \d+ pstore_kexec_console$", log, re.MULTILINE), log
