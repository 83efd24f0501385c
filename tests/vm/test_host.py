# SPDX-License-Identifier: GPL-2.0-or-later
"""What other systems do to a machine: FIPS mode, and kdump.service."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.fakehost import busybox_without_final_actions
from tests.vm import service, vmcore
from tests.vmtest import stick
from tests.vmtest.machine import OVMF, Stick
from tests.vmtest.rootfs import SYSTEMD, Root
from tests.vmtest.vm import VM, running
from tinykdump import notice
from tinykdump.memory import MIB

# Which libgcrypt 1.11 refuses to encrypt to, and earlier ones to sign with as well. gpg must fail,
# and what it says is looked at.
ADD_CURVE25519 = """
gpg() { command gpg --homedir /run/h --batch --passphrase '' "$@"; }
mkdir -m 700 /run/h
gpg --quick-gen-key x nistp256 sign never 2>/run/h/log
key=$(gpg --with-colons --list-keys x | sed -n 's/^fpr:*//p' | tr -d :)
gpg --quick-add-key "$key" cv25519 encrypt 2>&1 && exit 1
exit 0
"""

# tests/unit/test_host.py asks the same in containers and sandboxes.
IS_LIVE = "from tinykdump.host import Host; print(Host.given({}).live)"


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
        assert vm.run(["python3", "-c", IS_LIVE]).text == "True\n"
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


@pytest.mark.parametrize(
    ("action", "event"), [("poweroff", ("SHUTDOWN", "guest-shutdown")), ("reboot", ("RESET", ""))]
)
def test_a_busybox_without_the_final_actions(
    vm: VM, root: Root, action: str, event: tuple[str, str]
) -> None:
    """As openSUSE's, and where that one is: the kernel does what the applets would."""
    vm.put(busybox_without_final_actions(), "/usr/bin/busybox-static", mode=0o755)
    vm.unplug("stick")
    service.reconfigure(vm, f"[dump]\nwait = 5\nfinal_action = {action}\n")
    sources = [each["source"] for each in service.manifest(vm, root.kver)["inputs"]]
    assert "/usr/bin/busybox-static" in sources
    service.crash(vm, service.mark())
    came = vm.wait_for_reboot(service.CRASH_SECONDS)
    assert came["event"] == event[0]
    assert event[1] in ("", came["data"]["reason"])
    assert f"dump failed; final action: {action}" in vm.console
    assert "applet not found" in vm.console or f"{action}: not found" in vm.console


def test_the_log_is_kept_where_the_kernel_has_efi_pstore_turned_off(
    root: Root, keys: service.KeyPair, tmp_path: Path
) -> None:
    """As Fedora's has by its configuration, and this one by its command line."""
    machine = root.machine("crashkernel=192M", "efi_pstore.pstore_disable=1", init=SYSTEMD,
                           memory_mib=service.MEMORY_MIB, firmware=OVMF)  # fmt: skip
    token = service.mark()
    with running(machine, tmp_path / "vm") as vm:
        vm.wait_for_agent()
        vm.run(["modprobe", "efi_pstore"])
        configuration = f"[dump]\nwait = 5\ntarget = LABEL={token}\n"
        service.install(vm, keys=keys, configuration=configuration)
        vm.run(["tinykdump", "-l"])
        status = vm.run(["tinykdump", "status"]).text
        assert "crash log:    lost: this kernel has pstore in EFI variables turned off" in status
        service.reconfigure(vm, f"{configuration}[crashkernel]\nefi_pstore = yes\n")
        assert "crash log:    efi_pstore" in vm.run(["tinykdump", "status"]).text
        assert "efi_pstore.pstore_disable=N" in service.manifest(vm, root.kver)["cmdline"]
        vm.run(["systemctl", "enable", "tinykdump"])
        vm.run(["sync"])
        service.crash(vm, service.mark())
        vm.wait_for_reboot(service.CRASH_SECONDS)
        vm.wait_for_agent()
        vm.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=300)
        # The service has turned it on again, and systemd has put the records away.
        assert "/dmesg-efi_pstore-" in vm.shell("find /var/lib/systemd/pstore -type f").text
        assert vm.run(["ls", "/sys/fs/pstore"]).text == ""
        assert f"failed: no stick LABEL={token} within 5 s" in vm.run(["tinykdump", "log"]).text
        assert_told(vm)


def assert_told(vm: VM) -> None:
    """The login and the journal tell of the crash, until status was run."""
    assert "; no complete dump was saved (" in vm.get(str(notice.MOTD)).decode()
    entry = ["journalctl", f"MESSAGE_ID={notice.MESSAGE_ID}", "-o", "cat", "--no-pager"]
    (line,) = vm.run(entry).text.splitlines()
    assert line.endswith("; no complete dump was saved")
    vm.run(["journalctl", "--update-catalog"])
    assert "What became of the dump:" in vm.run([*entry[:2], "-x", "--no-pager"]).text
    vm.run(["tinykdump", "status", "--json"], check=False)
    assert vm.run(["ls", "/run/motd.d"]).text == "tinykdump\n"
    vm.run(["tinykdump", "status"], check=False)
    assert vm.run(["ls", "/run/motd.d"]).text == ""


# The EFI program of systemd that a unified kernel image begins with; see systemd-stub(7).
STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"


def test_a_kernel_that_is_only_in_a_unified_image_is_loaded(
    vm: VM, root: Root, tmp_path: Path
) -> None:
    """A real one, where Fedora's kernel-uki-virt has it: kexec gets the kernel out of it."""
    subprocess.run(
        ["objcopy", "--add-section", f".linux={root.kernel}", "--change-section-vma",
         ".linux=0x2000000", STUB, tmp_path / "uki.efi"], check=True,
    )  # fmt: skip
    place = f"/lib/modules/{root.kver}"
    vm.shell(f"tinykdump unload; rm -f /boot/vmlinuz-{root.kver} {place}/vmlinuz")
    vm.put(tmp_path / "uki.efi", f"{place}/vmlinuz-virt.efi")
    vm.run(["kernel-install", "add", root.kver, f"{place}/vmlinuz-virt.efi"])
    vm.run(["tinykdump", "-b", "-l"])
    assert vm.run(["tinykdump", "status"]).status == 0
    kernel = service.manifest(vm, root.kver)["kernel"]
    assert Path(kernel).parent == Path("/var/lib/tinykdump/images") / root.kver
    assert vm.get(kernel) == root.kernel.read_bytes()


# What Fedora's kdump.service does, of which no package can be had here: kdumpctl starts without a
# look at whose crash kernel is loaded, and stops by unloading it.
KDUMP = """
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sh -c 'grep -q 1 /sys/kernel/kexec_crash_loaded || kexec -p -a --reuse-cmdline {kernel}'
ExecStop=kexec -p -u
[Install]
WantedBy=multi-user.target
"""
SCRIPTLET = ["python3", "-I", "-m", "tinykdump.scriptlets", "install"]


def loaded(vm: VM) -> bool:
    return vm.run(["cat", "/sys/kernel/kexec_crash_loaded"]).text == "1\n"


def test_nothing_is_loaded_or_made_smaller_while_kdump_service_is_enabled(
    root: Root, keys: service.KeyPair, tmp_path: Path
) -> None:
    """One line in the scriptlet and in status; with takeover, tinykdump is what is armed."""
    machine = root.machine("crashkernel=192M", init=SYSTEMD, memory_mib=service.MEMORY_MIB)
    with running(machine, tmp_path / "vm") as vm:
        vm.wait_for_agent()
        unit = KDUMP.format(kernel=f"/boot/vmlinuz-{root.kver}")
        vm.put(unit.encode(), "/usr/lib/systemd/system/kdump.service")
        vm.run(["systemctl", "enable", "kdump.service"])
        service.install(vm, keys=keys)
        vm.run(["systemctl", "enable", "tinykdump.service"])
        for foreign in (False, True):
            (line,) = vm.run(SCRIPTLET).stderr.decode().splitlines()
            assert line.startswith("tinykdump: not armed: kdump.service is enabled and would ")
            status = vm.run(["tinykdump", "status", "--json"], check=False)
            assert status.status == 1
            (problem,) = json.loads(status.text)["problems"]
            assert problem.startswith("kdump.service is enabled and would unload tinykdump's")
            assert (service.reserved(vm), loaded(vm)) == (192 * MIB, foreign)
            vm.run(["systemctl", "start", "kdump.service"])

        vm.put(b"[crashkernel]\ntakeover = yes\n", service.DROP_IN)
        vm.run(["tinykdump", "-l"])
        assert vm.run(["tinykdump", "status"]).status == 0
        assert service.reserved(vm) < 192 * MIB
        vm.run(["systemctl", "stop", "kdump.service"])  # why it is refused otherwise
        assert not loaded(vm)

        vm.run(["rm", service.DROP_IN])
        vm.run(["systemctl", "disable", "kdump.service"])
        vm.run(["tinykdump", "-l"])
        assert vm.run(["tinykdump", "status"]).status == 0


# In place of QEMU, which would emulate a guest in an emulated guest: the console of a crash kernel
# that says that it has saved a dump.
NO_QEMU = """\
#!/bin/sh
while [ $# -gt 1 ]; do [ "$1" != -serial ] || console=${2#file:}; shift; done
cat >"$console" <<END
[    1.000000] tinykdump: test 0123456789abcdef
[    0.000000] Linux version 6
[    1.500000] a line before it
[    2.000000] tinykdump: [2.00 s] saved as x
END
"""


def test_a_kernel_that_is_installed_is_rehearsed_in_the_background(
    root: Root, keys: service.KeyPair, tmp_path: Path
) -> None:
    """In the unit's sandbox, which lets it mount the virtual stick: there is no dump on it."""
    machine = root.machine("crashkernel=192M", init=SYSTEMD, memory_mib=service.MEMORY_MIB)
    with running(machine, tmp_path / "vm") as vm:
        vm.wait_for_agent()
        service.install(vm, keys=keys, configuration="[rehearsal]\non_install = yes\n")
        vm.put(NO_QEMU.encode(), "/usr/bin/qemu-system-x86_64", mode=0o755)
        vm.run(["systemctl", "daemon-reload"])
        service.kernel_install(vm, "add", root.kver)
        vm.shell("until [ -e /var/lib/tinykdump/rehearsal.json ]; do sleep 1; done", timeout=300)
        status = json.loads(vm.run(["tinykdump", "status", "--json"], check=False).text)
        assert status["rehearsal"]["kernel"] == root.kver
        assert status["rehearsal"]["result"] == "saved, but no complete dump is on the stick"
        log = vm.shell("journalctl -u 'tinykdump-rehearse@*' -o cat --no-pager").text
        assert f"a guest with 512 MiB, {service.reserved(vm) // MIB} MiB of them reserved" in log
        assert [each for each in status["problems"] if each.startswith("the rehearsal of ")]


def test_the_service_arms_and_rebuilds_in_its_sandbox(root: Root, tmp_path: Path) -> None:
    """With a key that it makes itself, and a look at the stick, which is a small one."""
    usual = stick.make(tmp_path / "stick.img")
    machine = root.machine("crashkernel=192M", init=SYSTEMD, memory_mib=service.MEMORY_MIB,
                           sticks=(Stick("stick", usual.path),))  # fmt: skip
    unit = "tinykdump.service"
    with running(machine, tmp_path / "vm") as vm:
        vm.wait_for_agent()
        service.install(vm)
        vm.run(["systemctl", "daemon-reload"])
        vm.run(["systemctl", "start", unit], timeout=300)
        status = json.loads(vm.run(["tinykdump", "status", "--json"]).text)
        assert status["loaded"] == root.kver
        assert sorted(problem[:13] for problem in status["problems"]) == [
            "/dev/sda has ", "only this mac"  # it has no copy of its key yet
        ]  # fmt: skip
        assert status["key"] == service.manifest(vm, root.kver)["key"] != ""

        image = vm.shell(f"ls -i /var/lib/tinykdump/images/{root.kver}/manifest.json").text
        vm.run(["systemctl", "reload", unit], timeout=300)
        assert vm.shell(f"ls -i /var/lib/tinykdump/images/{root.kver}/manifest.json").text != image
        assert vm.run(["tinykdump", "status"]).status == 0

        vm.run(["systemctl", "stop", unit], timeout=300)
        assert not loaded(vm)
        log = vm.run(["journalctl", "-u", unit, "-o", "cat", "--no-pager"]).text
        # The reload builds, and says that Debian's makedumpfile is old.
        said = [line[:24] for line in log.splitlines() if line.startswith("tinykdump: ")]
        assert said == ["tinykdump: /dev/sda has ", "tinykdump: note: makedum",
                        "tinykdump: /dev/sda has "]  # fmt: skip
        vm.run(["systemctl", "start", unit], timeout=300)
        mark = service.crash_and_wait(vm)
        assert "saved as" in vm.console
        vm.quit()
    assert mark
    (dump,) = service.dumps(usual, tmp_path / "files")
    assert dump.complete
