# SPDX-License-Identifier: GPL-2.0-or-later
"""pstore as a tree of files."""

import os

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
    for name, value in {"mem_address": 805306368, "mem_size": 1048576, "record_size": 0,
                        "kexec_console_size": 65536, "max_reason": -1}.items():  # fmt: skip
        fake.write(f"{PARAMETERS}/{name}", f"{value}\n")
    region = (
        "pstore.backend=ramoops", "ramoops.mem_address=805306368", "ramoops.mem_size=1048576",
        # Zero is no default: without it the dump zones would take what is the console's.
        "ramoops.record_size=0", "ramoops.kexec_console_size=65536", "ramoops.max_reason=-1",
    )  # fmt: skip
    assert pstore.modules(fake.host) == ("ramoops",)
    assert pstore.parameters(fake.host, WITH_TYPE) == region
    assert pstore.parameters(fake.host, "") == (
        *region, "printk.always_kmsg_dump=1", "pstore.kmsg_bytes=32768", "ramoops.max_reason=0",
    )  # fmt: skip


def test_what_a_distribution_has_switched_off_is_on_in_both_kernels(fake: FakeHost) -> None:
    fake.write("/sys/module/pstore/parameters/backend", "efi_pstore\n")
    fake.write("/sys/module/efi_pstore/parameters/pstore_disable", "N\n")
    assert pstore.modules(fake.host) == ("efi_pstore",)
    assert pstore.parameters(fake.host, WITH_TYPE) == (
        "pstore.backend=efi_pstore", "efi_pstore.pstore_disable=N",
    )  # fmt: skip


def test_a_backend_that_is_no_module_and_has_no_parameters(fake: FakeHost) -> None:
    fake.write("/sys/module/pstore/parameters/backend", "erst\n")
    assert pstore.modules(fake.host) == ()
    assert pstore.parameters(fake.host, WITH_TYPE) == ("pstore.backend=erst",)


def test_what_a_kernel_without_the_type_can_not_keep_is_said(fake: FakeHost) -> None:
    assert pstore.description(fake.host, WITH_TYPE) == ""
    fake.write("/sys/module/pstore/parameters/backend", "erst\n")
    assert pstore.description(fake.host, WITH_TYPE) == "erst"
    text = pstore.description(fake.host, "# CONFIG_PSTORE_KEXEC_CONSOLE is not set\n")
    assert text.startswith("erst, unless it hangs (")
    assert "printk.always_kmsg_dump" in text


def test_the_log_is_found_where_systemd_has_put_it(fake: FakeHost) -> None:
    assert pstore.crash_log(fake.host) is None
    archive = fake.path("/var/lib/systemd/pstore/kexec-console-erst-1")
    fake.write("/var/lib/systemd/pstore/kexec-console-erst-1", "from the archive")
    os.utime(archive, (1000, 1000))
    assert text_of(fake) == "from the archive"
    fake.write("/sys/fs/pstore/kexec-console-ramoops-0", "newer")
    assert text_of(fake) == "newer"
    # Whichever place has the newest.
    os.utime(fake.path("/sys/fs/pstore/kexec-console-ramoops-0"), (10, 10))
    assert text_of(fake) == "from the archive"


def text_of(fake: FakeHost) -> str:
    found = pstore.crash_log(fake.host)
    assert found is not None
    return found.text
