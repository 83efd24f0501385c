# SPDX-License-Identifier: GPL-2.0-or-later
"""Marks follow from fixtures, and no machine starts without a mark."""

import pytest

BY_WAY_OF_ANOTHER = """
import pytest

@pytest.fixture
def machine(root):
    return root

def test_of_a_machine(machine): ...

@pytest.fixture(scope="session")
def plan(kernel_plan):
    return kernel_plan

@pytest.fixture
def package(plan):
    return plan

def test_of_the_source(package): ...
def test_of_a_kernel(kernel): ...

# Names of its own, whatever a fixture of that name does.
@pytest.mark.parametrize(("root", "kernel"), [(1, 2)])
def test_of_logic(root, kernel): ...
"""

UNMARKED = """
from pathlib import Path
from tests.vmtest.machine import Machine
from tests.vmtest.vm import running

def test_of_a_machine(tmp_path):
    with running(Machine(Path("/no/kernel")), tmp_path):
        pass
"""


def collected(pytester: pytest.Pytester, expression: str) -> set[str]:
    result = pytester.runpytest_inprocess(
        "--collect-only", "-q", "-p", "tests.vmtest.plugin", "-m", expression
    )
    return {line.split("::")[1].split("[")[0] for line in result.outlines if "::" in line}


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("vm", {"test_of_a_machine", "test_of_a_kernel"}),
        ("kernel", {"test_of_the_source", "test_of_a_kernel"}),
        ("not vm and not kernel", {"test_of_logic"}),
    ],
)
def test_mark_follows_the_fixture(
    pytester: pytest.Pytester, expression: str, names: set[str]
) -> None:
    pytester.makepyfile(BY_WAY_OF_ANOTHER)
    assert collected(pytester, expression) == names


def test_machine_without_a_mark_does_not_start(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(UNMARKED)
    result = pytester.runpytest_inprocess("-p", "tests.vmtest.plugin")
    result.stdout.fnmatch_lines(["*test_of_a_machine boots a machine (name its fixture in BOOTS*"])
