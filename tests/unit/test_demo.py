# SPDX-License-Identifier: GPL-2.0-or-later
"""The acts that `make demo` performs; nothing boots here."""

from pathlib import Path

import pytest

from kernel.run import KernelError
from kernel.source import NoSourceError
from tests import demo
from tests.vmtest.kernels import Kernel
from tests.vmtest.rootfs import Root


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of the acts, which are not really performed: that takes minutes."""
    acts: list[str] = []

    def perform(_root: Root, kernel: Kernel | None, small: Kernel | None, output: Path) -> bool:
        acts.append(output.name)
        assert (kernel is None) == (output.name != "patched")
        assert (small is None) == (output.name != "small")
        return True

    (tmp_path / "kver").write_text("6.12")
    (tmp_path / "release").write_text("7.2")
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "demo")
    monkeypatch.setattr("tests.vmtest.rootfs.build", lambda: Root(tmp_path))
    monkeypatch.setattr(demo, "patched", lambda: Kernel(tmp_path))
    monkeypatch.setattr(demo, "small_kernel", lambda: Kernel(tmp_path))
    monkeypatch.setattr(demo, "perform", perform)
    return acts


def no_source() -> Kernel:
    raise NoSourceError("cannot find the source of Linux 7.2: nobody has it", "give a tarball")


@pytest.mark.parametrize(
    ("chosen", "acts"),
    [
        ("", ["stock", "patched"]),
        ("stock", ["stock"]),
        ("patched", ["patched"]),
        ("small", ["small"]),
    ],
)
def test_both_acts_or_the_named_one(performed: list[str], chosen: str, acts: list[str]) -> None:
    assert demo.main(demo.chosen(chosen)) == 0
    assert performed == acts


def test_without_a_source_one_line_says_why_the_second_act_is_left_out(
    performed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "patched", no_source)
    assert demo.main() == 0
    assert performed == ["stock"]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "second act" in line]
    assert line == (
        "The second act is left out: cannot find the source of Linux 7.2: nobody has it "
        "(give a tarball)"
    )


def test_act_that_is_named_is_not_left_out(
    performed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "patched", no_source)
    with pytest.raises(KernelError):
        demo.main(("patched",))
    assert performed == []


def test_build_error_of_the_kernel_ends_the_demo(
    performed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> Kernel:
        raise KernelError("make failed (2)")

    monkeypatch.setattr(demo, "patched", fails)
    with pytest.raises(KernelError, match="make failed"):
        demo.main()
    assert performed == ["stock"]


def test_unknown_act_is_named() -> None:
    with pytest.raises(SystemExit, match="KERNEL=other is none of stock, patched, small"):
        demo.chosen("other")
