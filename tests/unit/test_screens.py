# SPDX-License-Identifier: GPL-2.0-or-later
"""The drivers of the screen that a crash kernel leaves out; the machines of issue reports."""

import pytest

from tests.fakehost import KVER, STATE, FakeHost
from tinykdump import cli, hardware, load, state
from tinykdump.image.manifest import parse
from tinykdump.image.screens import Screens, parameters, screens

# As System.map has them: what of a driver is not its initcall, too.
TABLE = """\
ffffffff81000000 T do_one_initcall
ffffffff836f1c80 t __pfx_simpledrm_platform_driver_init
ffffffff836f1c90 t simpledrm_platform_driver_init
ffffffff8379a0c4 d __initcall__kmod_simpledrm__381_945_simpledrm_platform_driver_init6
ffffffff83812340 t simpledrm_platform_driver_exit
ffffffff836f1d90 t efidrm_platform_driver_init
"""
# With link-time optimization (include/linux/init.h), the function that is called is another one.
STUB = "__initstub__kmod_simpledrm__381_945_simpledrm_platform_driver_init6"
NAME = "simpledrm_platform_driver_init"
KALLSYMS = "CONFIG_SMP=y\nCONFIG_KALLSYMS=y\n"


@pytest.mark.parametrize(
    ("built_in", "config", "table", "expected"),
    [
        ({"drm", "fb"}, KALLSYMS, TABLE, Screens((), stays=False)),
        ({"simpledrm"}, KALLSYMS, TABLE, Screens((NAME,), stays=False)),
        ({"simpledrm"}, "", "", Screens((NAME,), stays=False)),
        ({"simpledrm"}, "CONFIG_SMP=y\n", TABLE, Screens((), stays=True)),
        ({"simpledrm", "efidrm"}, KALLSYMS, TABLE,
         Screens((NAME, "efidrm_platform_driver_init"), stays=False)),
        ({"efidrm", "vesadrm"}, KALLSYMS, TABLE,
         Screens(("efidrm_platform_driver_init",), stays=True)),
        ({"simpledrm"}, KALLSYMS, f"{TABLE}ffffffff836f1a00 t {STUB}\n",
         Screens((NAME, STUB), stays=False)),
    ],
)  # fmt: skip
def test_what_is_left_out(built_in: set[str], config: str, table: str, expected: Screens) -> None:
    assert screens(built_in, config, table) == expected


def test_one_parameter_has_them_all() -> None:
    assert parameters(Screens(("a_init", "b_init"), stays=True)) == (
        "initcall_blacklist=a_init,b_init",
    )
    assert parameters(Screens((), stays=True)) == ()


@pytest.fixture
def machine(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """One with Fedora's drivers, and a list of the user's own."""
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    folder = f"/lib/modules/{KVER}"
    built_in = fake.path(f"{folder}/modules.builtin").read_text()
    fake.write(f"{folder}/modules.builtin",
               f"{built_in}kernel/drivers/gpu/drm/sysfb/simpledrm.ko\n")  # fmt: skip
    fake.write(f"{folder}/config", f"CONFIG_RD_GZIP=y\n{KALLSYMS}")
    fake.write(f"/boot/System.map-{KVER}", "ffffffffffffffff B The real System.map is elsewhere\n")
    fake.write("/proc/cmdline", "initcall_blacklist=mine_init\n")
    fake.write("/etc/default/tinykdump", "[dump]\nencrypt = no\n")
    fake.write("/sys/class/graphics/fb0/virtual_size", "1920,1080\n")
    fake.write("/sys/class/drm/card0-HDMI-A-1/modes", "3840x2160\n1920x1080\n")
    fake.write("/sys/class/drm/card0-DP-1/modes", "")
    return fake


@pytest.mark.parametrize("place", ["", f"/lib/modules/{KVER}/System.map", "/proc/kallsyms"])
def test_the_crash_kernel_is_told(machine: FakeHost, place: str) -> None:
    """All of the kernel's lists count, so that the user's stays."""
    if place:
        machine.write(place, TABLE)
    assert cli.main(["-b"]) == 0
    made = parse(machine.path(f"{STATE}/manifest.json").read_text(), "m")
    words = made.cmdline.split()
    assert {"initcall_blacklist=mine_init", f"initcall_blacklist={NAME}"} <= set(words)
    assert not made.draws


def test_what_stays_is_priced(machine: FakeHost) -> None:
    """A copy of the largest screen, of 4 bytes for each point."""
    assert cli.main(["-b"]) == 0
    before = state.read_manifest(machine.host, KVER)
    machine.write("/proc/kallsyms", TABLE.replace(NAME, "another_init"))
    assert cli.main(["-b"]) == 0
    after = state.read_manifest(machine.host, KVER)
    assert before
    assert after
    assert (before.draws, after.draws) == (False, True)
    assert NAME not in after.cmdline
    size = 3840 * 2160 * 4
    assert hardware.screen_bytes(machine.host) == size
    rows = [load.need_of(machine.host, each).rows[1].bytes for each in (before, after)]
    assert rows[1] - rows[0] == size


def test_a_machine_without_a_screen(fake: FakeHost) -> None:
    assert hardware.screen_bytes(fake.host) == 0
