# SPDX-License-Identifier: GPL-2.0-or-later
"""pstore as a tree of files."""

from tests.fakehost import FakeHost
from tinykdump import pstore

PARAMETERS = "/sys/module/ramoops/parameters"
WITH_TYPE = "CONFIG_PSTORE=y\nCONFIG_PSTORE_KEXEC_CONSOLE=y\n"


def test_without_a_backend_nothing_is_said(fake: FakeHost) -> None:
    assert pstore.parameters(fake.host, "") == ()
    fake.write("/sys/module/pstore/parameters/backend", "(null)\n")
    assert pstore.parameters(fake.host, "") == ()
    assert pstore.modules(fake.host) == ()


def test_both_kernels_get_the_same_region(fake: FakeHost) -> None:
    fake.write("/sys/module/pstore/parameters/backend", "ramoops\n")
    for name, value in {"mem_address": 805306368, "mem_size": 1048576, "mem_type": 0,
                        "kexec_console_size": 65536, "max_reason": -1}.items():  # fmt: skip
        fake.write(f"{PARAMETERS}/{name}", f"{value}\n")
    region = (
        "ramoops.mem_address=805306368", "ramoops.mem_size=1048576",
        "ramoops.kexec_console_size=65536",
    )  # fmt: skip
    assert pstore.modules(fake.host) == ("ramoops",)
    assert pstore.parameters(fake.host, WITH_TYPE) == region
    assert pstore.parameters(fake.host, "") == (
        *region, "printk.always_kmsg_dump=1", "pstore.kmsg_bytes=32768",
    )  # fmt: skip


def test_the_log_is_found_where_systemd_has_put_it(fake: FakeHost) -> None:
    assert pstore.crash_log(fake.host) is None
    fake.write("/var/lib/systemd/pstore/1/kexec-console-efi-1", "from the archive")
    found = pstore.crash_log(fake.host)
    assert found is not None
    assert found.text == "from the archive"
    fake.write("/sys/fs/pstore/kexec-console-ramoops-0", "newer")
    found = pstore.crash_log(fake.host)
    assert found is not None
    assert found.text == "newer"
