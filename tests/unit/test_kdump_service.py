# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the distribution's kdump service is enabled, compared with the real systemctl."""

import shutil
import subprocess

import pytest

from tests.fakehost import FakeHost
from tinykdump import kdump_service

UNIT = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy={}\n"


def systemctl(fake: FakeHost, *words: str) -> str:
    assert shutil.which("systemctl"), "systemctl is not installed (run tools/deps)"
    argv = ["systemctl", f"--root={fake.root}", "--quiet", *words]
    return subprocess.run(argv, capture_output=True, check=False, text=True).stdout.strip()


@pytest.mark.parametrize("unit", ["kdump.service", "kdump-early.service", "kdump-tools.service"])
@pytest.mark.parametrize("target", ["multi-user.target", "basic.target", "sysinit.target"])
def test_as_systemctl_says(fake: FakeHost, unit: str, target: str) -> None:
    assert kdump_service.enabled(fake.host) == ""
    fake.write(f"/usr/lib/systemd/system/{unit}", UNIT.format(target))
    assert kdump_service.enabled(fake.host) == ""
    systemctl(fake, "enable", unit)
    assert kdump_service.enabled(fake.host) == unit
    systemctl(fake, "disable", unit)
    assert kdump_service.enabled(fake.host) == ""
    systemctl(fake, "enable", "--runtime", unit)
    assert kdump_service.enabled(fake.host) == unit
    systemctl(fake, "mask", unit)
    assert kdump_service.enabled(fake.host) == ""


def test_a_link_that_a_removed_package_has_left(fake: FakeHost) -> None:
    fake.link("/etc/systemd/system/multi-user.target.wants/kdump.service",
              "/usr/lib/systemd/system/kdump.service")  # fmt: skip
    assert kdump_service.enabled(fake.host) == ""
