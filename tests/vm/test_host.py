# SPDX-License-Identifier: GPL-2.0-or-later
"""What other systems do to a machine: FIPS mode, and kdump.service."""

import json
import subprocess
from pathlib import Path

from tests.vm import service, vmcore
from tests.vmtest import stick
from tests.vmtest.machine import Stick
from tests.vmtest.rootfs import Root
from tests.vmtest.vm import running

# Which libgcrypt 1.11 refuses to encrypt to, and earlier ones to sign with as well.
ADD_CURVE25519 = """
gpg() { command gpg --homedir /run/h --batch --passphrase '' "$@"; }
mkdir -m 700 /run/h
gpg --quick-gen-key x nistp256 sign never 2>/run/h/log
key=$(gpg --with-colons --list-keys x | sed -n 's/^fpr:*//p' | tr -d :)
gpg --quick-add-key "$key" cv25519 encrypt 2>&1 || true
"""


def test_a_machine_in_fips_mode_saves_a_dump_to_its_own_key(root: Root, tmp_path: Path) -> None:
    """The kernel is in FIPS mode, and so is the guest's libgcrypt, which refuses Curve25519."""
    usual = stick.make(tmp_path / "stick.img")
    machine = root.machine("crashkernel=192M", "fips=1", memory_mib=service.MEMORY_MIB,
                           sticks=(Stick("stick", usual.path),))  # fmt: skip
    keys = tmp_path / "keys"
    with running(machine, tmp_path / "vm") as vm:
        vm.wait_for_agent()
        assert vm.run(["cat", "/proc/sys/crypto/fips_enabled"]).text == "1\n"
        assert "Not supported" in vm.shell(ADD_CURVE25519).text
        service.install(vm)
        service.kernel_install(vm, "add", root.kver)
        status = json.loads(vm.run(["tinykdump", "status", "--json"]).text)
        assert status["key"] == service.manifest(vm, root.kver)["key"] != ""
        listed = vm.run(["gpg", "--homedir", "/var/lib/tinykdump/keys", "--list-keys"]).text
        assert listed.count("nistp256") == 2
        subprocess.run(
            ["tar", "-x", "--one-top-level=" + str(keys)],
            input=vm.shell("tar -C /var/lib/tinykdump/keys -c --exclude=S.* .").stdout,
            check=True,
        )
        mark = service.crash_and_wait(vm)
        vm.quit()
    (dump,) = service.dumps(usual, tmp_path / "files")
    assert dump.complete
    service.restore(dump, tmp_path / "restored", keys)
    assert mark in vmcore.log(tmp_path / "restored/vmcore")
