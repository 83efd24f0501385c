# SPDX-License-Identifier: GPL-2.0-or-later
"""All built-in KUnit suites, checked by the kernel's own parser."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kernel.build import Plan, Request, locked
from kernel.tree import checkout
from tests.kernel.scripts import APPEND
from tests.vmtest import qemu
from tests.vmtest.kernels import Kernel
from tests.vmtest.machine import Machine
from tests.vmtest.qemu import Qemu

# Enough for all suites under emulation on a busy machine, also with lockdep.
KUNIT_SECONDS = 600

# What lockdep says (kernel/locking/lockdep.c); suites provoke other warnings.
LOCKDEP = re.compile(r"WARNING: .*(?:lock|RCU).*")


@pytest.mark.parametrize("more", [(), ("checked",)], ids=["usual", "lockdep"])
def test_all_suites(
    build_kernel: Callable[[Request], Kernel], wanted: Request, plan: Plan, tmp_path: Path,
    more: tuple[str, ...],
) -> None:  # fmt: skip
    built = build_kernel(replace(wanted, fragments=(*wanted.fragments, *more)))
    # The results are informational messages.
    words = ("ignore_loglevel", "kunit.enable=1", "kunit.autorun=1", "kunit_shutdown=reboot")
    machine = Machine(
        built.directory / "vmlinuz", append=(*APPEND, *words), cpus=2, model="pc", reboots=False
    )
    with qemu.started(Qemu, machine, tmp_path) as vm:
        assert vm.wait_for_end(KUNIT_SECONDS) == 0
    with locked(plan):
        checkout(plan.tree, plan.commit)
        parse = ["tools/testing/kunit/kunit.py", "parse", f"{tmp_path}/console.log"]
        judged = subprocess.run(
            [sys.executable, *parse], cwd=plan.tree, capture_output=True, text=True, check=False
        )
    print(judged.stdout)
    console = (tmp_path / "console.log").read_text(errors="replace")
    assert LOCKDEP.findall(console) == []
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert "Testing complete" in judged.stdout
