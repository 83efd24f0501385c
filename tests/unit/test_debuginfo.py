# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said about reading a vmcore, and where its symbols come from."""

import shlex
from pathlib import Path

import pytest

from tinykdump.debuginfo import advice, package, places
from tinykdump.vmcoreinfo import Info

BUILD_ID = "b1d7a9114053a488ef493f85f85e9fc75ba9f632"


@pytest.mark.parametrize(
    ("kver", "command", "vmlinux"),
    [
        ("7.2.13-200.fc45.x86_64", "dnf install --enablerepo='*debug*' "
         "kernel-debuginfo-7.2.13-200.fc45.x86_64",
         "/usr/lib/debug/lib/modules/7.2.13-200.fc45.x86_64/vmlinux"),
        ("6.12.117+deb13-amd64", "apt install linux-image-6.12.117+deb13-amd64-dbg",
         "/usr/lib/debug/boot/vmlinux-6.12.117+deb13-amd64"),
        ("6.1.0-40-cloud-amd64", "apt install linux-image-6.1.0-40-cloud-amd64-dbg",
         "/usr/lib/debug/boot/vmlinux-6.1.0-40-cloud-amd64"),
        ("6.14.0-5-generic", "apt install linux-image-unsigned-6.14.0-5-generic-dbgsym",
         "/usr/lib/debug/boot/vmlinux-6.14.0-5-generic"),
        ("6.12.0-55.el10.x86_64", "dnf install --enablerepo='*debug*' "
         "kernel-debuginfo-6.12.0-55.el10.x86_64",
         "/usr/lib/debug/lib/modules/6.12.0-55.el10.x86_64/vmlinux"),
        ("7.2.13-1.fc45.x86_64+tinykdump", "dnf install kernel-tinykdump-debuginfo",
         "/usr/lib/debug/lib/modules/7.2.13-1.fc45.x86_64+tinykdump/vmlinux"),
        ("7.2.0-mine", "", "/usr/lib/debug/lib/modules/7.2.0-mine/vmlinux"),
    ],
)  # fmt: skip
def test_distributions(kver: str, command: str, vmlinux: str) -> None:
    assert package(kver) == command
    assert Path(vmlinux) in places(kver)
    lines = list(advice(Path("/x/vmcore"), Info({"OSRELEASE": kver, "BUILD-ID": BUILD_ID}), None))
    assert f"    crash {vmlinux} /x/vmcore" in lines
    assert f"    drgn --core /x/vmcore --symbols {vmlinux}" in lines
    assert (f"    {command}" in lines) == bool(command)
    assert f"    debuginfod-find debuginfo {BUILD_ID}" in "\n".join(lines)


def test_installed_symbols_and_a_place_that_needs_quotes() -> None:
    """The commands are pasted into a shell."""
    core = Path("/x/a'b c;reboot/vmcore")
    lines = list(advice(core, Info({"OSRELEASE": "6.1"}), Path("/lib/vm linux")))
    assert [shlex.split(line) for line in lines[1:]] == [
        ["tinykdump", "report", str(core)],
        ["crash", "/lib/vm linux", str(core)],
        ["drgn", "--core", str(core), "--symbols", "/lib/vm linux"],
    ]
