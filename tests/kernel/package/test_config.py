# SPDX-License-Identifier: GPL-2.0-or-later
"""The package's configuration, where there is no distribution's, comes out as it is written."""

import subprocess
from pathlib import Path

from kernel import kconfig
from kernel.build import Plan, fragment, locked
from kernel.tree import checkout

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
