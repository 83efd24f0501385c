# SPDX-License-Identifier: GPL-2.0-or-later
"""The package's configuration comes out as it is written, and not weaker than a distribution's."""

import re
import subprocess
from pathlib import Path

import pytest

from kernel import kconfig
from kernel.build import HERE, Plan, fragment, locked
from kernel.tree import checkout
from tests.kernel.package.packages import SPEC

# Only a kernel with a list of revoked certificates has it.
WITHOUT = {"CONFIG_SYSTEM_REVOCATION_KEYS"}


def test_generic(plan: Plan, tmp_path: Path) -> None:
    wanted = kconfig.merge(fragment(name) for name in ("generic", "tinykdump", "package"))
    config = tmp_path / ".config"
    with locked(plan):
        checkout(plan.tree, plan.commit)
        make = ["make", "-s", "-C", str(plan.tree), f"O={tmp_path}"]
        subprocess.run([*make, "x86_64_defconfig"], check=True)
        with config.open("a") as file:
            file.write(kconfig.render(wanted))
        subprocess.run([*make, "olddefconfig"], check=True, capture_output=True)
    unmet = kconfig.unmet(wanted, kconfig.parse(config.read_text()))
    assert [line for line in unmet if line.split(":")[0] not in WITHOUT] == []


# Like Fedora's where it matters: built in, and EFI pstore off by default.
BUILT_IN = (
    "BLK_DEV_SD", "EFI_VARS_PSTORE", "EFI_VARS_PSTORE_DEFAULT_DISABLE", "EXT4_FS", "PSTORE_RAM",
    "USB_EHCI_HCD", "USB_STORAGE", "USB_XHCI_HCD", "VFAT_FS",
)  # fmt: skip


def test_nothing_of_the_distributions_is_weaker(
    plan: Plan, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the spec's own merge; without its -y, the check names what became a module."""
    base, result = tmp_path / "base.config", tmp_path / ".config"
    fragments = [HERE / f"config/{name}.config" for name in ("tinykdump", "package")]
    (options,) = re.findall(r"^sh (scripts\S+) \S+:-n\} (.*) -O ", SPEC.read_text(), re.MULTILINE)
    check = [str(path) for path in (base, result, *fragments)]
    with locked(plan):
        checkout(plan.tree, plan.commit)
        make = ["make", "-s", "-C", str(plan.tree), f"O={tmp_path}"]
        subprocess.run([*make, "x86_64_defconfig"], check=True)
        with result.open("a") as file:
            file.writelines(f"CONFIG_{name}=y\n" for name in BUILT_IN)
        subprocess.run([*make, "olddefconfig"], check=True, capture_output=True)
        result.rename(base)
        for flags, weaker in ((options[1].split(), False), (["-Q"], True)):
            merge = ["sh", options[0], *flags, "-O", tmp_path, base, *fragments]
            subprocess.run(merge, cwd=plan.tree, check=True, capture_output=True)
            assert kconfig.main(check) == weaker
            said = capfd.readouterr().err
            assert ("CONFIG_USB_XHCI_HCD: y became m\n" in said) == weaker
            assert "CONFIG_EFI_VARS_PSTORE_DEFAULT_DISABLE" not in said
            got = kconfig.parse(result.read_text())
            assert got.get("CONFIG_EFI_VARS_PSTORE_DEFAULT_DISABLE", "n") == "n"
