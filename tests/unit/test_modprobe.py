# SPDX-License-Identifier: GPL-2.0-or-later
"""modprobe.d is read as the real modprobe reads it."""

import subprocess

import pytest

from tests import fakehost
from tests.fakehost import FakeHost
from tinykdump.image import modprobe, module_tree
from tinykdump.image.modprobe import Rules

TEXT = """\
# a comment
   # not one for modprobe either, which knows no such command

options usb-storage\tquirks=1:2:u  \\
  delay_use=1
options usb_storage option_zero_cd=3
options nothing
blacklist uas
blacklist\tehci-pci and more
blacklist
install sr-mod /bin/false
install cdrom\t:
install st   /sbin/modprobe --ignore-install st && echo
install sg
remove sg /bin/false
alias my-mod* x-y
alias pci:v00001B36d* special-hcd
alias usb:v0[4-5]-d* in-brackets
alias one
softdep xhci_pci pre: a-b c post: d
softdep xhci-pci pre: z
nonsense here
"""


def test_all_commands_are_read() -> None:
    assert modprobe.parse(modprobe.logical_lines(TEXT)) == Rules(
        aliases=(
            ("my_mod*", "x_y"),
            ("pci:v00001B36d*", "special_hcd"),
            ("usb:v0[4-5]_d*", "in_brackets"),
        ),
        blacklist=frozenset({"uas", "ehci_pci"}),
        disabled=frozenset({"sr_mod", "cdrom"}),
        options={"usb_storage": "quirks=1:2:u    delay_use=1 option_zero_cd=3"},
        softdeps={"xhci_pci": (["a_b", "c"], ["d"])},
    )


def test_modprobe_reads_the_same(fake: FakeHost) -> None:
    """modprobe --showconfig prints a line for each command."""
    fake.write("/etc/modprobe.d/test.conf", TEXT)
    done = subprocess.run(
        [fakehost.real("modprobe"), "--showconfig", "--dirname", fake.root, "--config",
         fake.path("/etc/modprobe.d")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ours = modprobe.parse(modprobe.logical_lines(TEXT))
    # It also prints the commands of /proc/cmdline and of the tree's own files.
    # kmod 30 prints no space before "post:".
    theirs = modprobe.parse(done.stdout.replace("post:", " post:").splitlines())
    assert ours.blacklist <= theirs.blacklist
    assert ours.disabled == theirs.disabled
    assert theirs.options["usb_storage"].split() == ours.options["usb_storage"].split()
    assert "nothing" not in theirs.options
    assert [alias for alias in theirs.aliases if alias in ours.aliases] == list(ours.aliases)
    assert theirs.softdeps["xhci_pci"] == ours.softdeps["xhci_pci"]


@pytest.mark.parametrize(
    ("name", "modules"),
    [("my-mod", ("x_y",)), ("my_mod_2", ("x_y",)), ("pci:v00001B36d0D", ("special_hcd",)),
     ("my", ())],
)  # fmt: skip
def test_aliases(name: str, modules: tuple[str, ...]) -> None:
    assert modprobe.parse(modprobe.logical_lines(TEXT)).aliased(name) == modules


def test_a_file_overrides_those_of_the_same_name(fake: FakeHost) -> None:
    fake.write("/etc/modprobe.d/b.conf", "b of etc")
    fake.write("/run/modprobe.d/b.conf", "b of run")
    fake.write("/usr/local/lib/modprobe.d/d.conf", "d")
    fake.write("/usr/lib/modprobe.d/a.conf", "a1\na2")
    fake.write("/lib/modprobe.d/c.conf", "c")
    fake.write("/etc/modprobe.d/no.txt", "no")
    fake.link("/etc/modprobe.d/c.conf", "/dev/null")  # masks the file, as with systemd
    assert module_tree.configuration(fake.host, "modprobe.d") == ["a1", "a2", "b of etc", "d"]
