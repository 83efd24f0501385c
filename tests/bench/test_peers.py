# SPDX-License-Identifier: GPL-2.0-or-later
"""What is computed of crashes beside other programs; nothing crashes here."""

from pathlib import Path

import pytest

from tests.bench import peers
from tests.bench.peers import Crash


def test_figures_of_some_crashes() -> None:
    crashes = [Crash(12.0, 40.0, 11.0, 39.0, 150_000_000), Crash(10.0, 45.0, 9.5, 44.0, 90_000_000)]
    found = {each.group: each for each in peers.figures(peers.KDUMP_TOOLS, crashes, {"x": "1"})}
    assert found["crash, panic to makedumpfile"].values == (12.0, 10.0)
    assert found["crash, panic to saved"].best == 40.0
    assert found["crash, clock of the crash kernel at saved"].median == 41.5
    assert found["crash, memory on the stick"].values == (150.0, 90.0)
    for each in found.values():
        assert each.name == "kdump-tools"
        assert each.command == "kdump-config load; echo c >/proc/sysrq-trigger"
        assert each.versions == {"x": "1"}


@pytest.mark.parametrize(("line", "seconds"), [
    ("[   12.500000] tinykdump: [12.49 s] saving the memory", 12.5),
    ("[  100.000001][    T1] kdump[2]: saving vmcore", 100.000001),
])  # fmt: skip
def test_the_clock_of_a_line(line: str, seconds: float) -> None:
    assert peers.clock(line) == seconds


@pytest.mark.parametrize("line", ["", "saved vmcore in /var/crash", "[  OK  ] Finished"])
def test_a_line_without_a_clock(line: str) -> None:
    with pytest.raises(ValueError, match="a line of the console without a time: "):
        peers.clock(line)


def test_kdump_utils_is_measured_only_if_its_sources_are_there() -> None:
    names = [peer.name for peer in peers.peers(None)]
    assert names == ["tinykdump", "tinykdump, encrypt = no", "kdump-tools"]
    assert [peer.name for peer in peers.peers(Path("x"))] == [*names, "dracut (kdump-utils)"]
