# SPDX-License-Identifier: GPL-2.0-or-later
"""The KUnit suites of the series, run by the kernel that has them built in."""

import re
from pathlib import Path

import pytest

from tests.kernel.pstore.machine import running
from tests.vmtest.machine import Machine


@pytest.mark.parametrize("suite", ["pstore_kexec_console", "pstore_kexec_records"])
def test_suite(patched: Machine, tmp_path: Path, suite: str) -> None:
    words = ("kunit.enable=1", "kunit.autorun=1", f"kunit.filter_glob={suite}")
    with running(patched.with_append(*words), tmp_path) as machine:
        machine.boot("normal")
        log = machine.run("dmesg")
    assert re.search(rf"^(\[[ 0-9.]+\] )?ok \d+ {suite}$", log, re.MULTILINE), log
    print("\n".join(re.findall(r"# .*pass:.*", log)))
