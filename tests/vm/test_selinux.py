# SPDX-License-Identifier: GPL-2.0-or-later
"""Under SELinux, enforcing: Linux 7.2 and Debian 14, with our module.

The policy is Debian's reference policy, with what our module needs of Fedora's (fedora.cil); and
Fedora's own, if the environment names its source. The tests of a policy share a machine, and their
order counts.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rpm.test_selinux import compiled
from tests.vm import service
from tests.vmtest import fedorapolicy, selinux, stick
from tests.vmtest.machine import Stick
from tests.vmtest.rootfs import Recipe, Root
from tests.vmtest.selinux import Denial, Policy
from tests.vmtest.vm import VM, running
from tinykdump import notice

pytestmark = pytest.mark.long

# For the tests' agent, and what the reference policy lacks.
AGENT, FEDORA = (Path(__file__).parent / name for name in ("agent.cil", "fedora.cil"))
# As Fedora labels kernel-install; see fedora.cil for tinykdump.
LABELS = {"/usr/bin/kernel-install": "bin_t", "/usr/bin/tinykdump": "tinykdump_exec_t"}
UNITS = ("tinykdump", "tinykdump-harvest", "tinykdump-notice")

SETTLE_SECONDS = 900.0


@pytest.fixture(scope="module", params=["reference", "fedora"])
def policy(request: pytest.FixtureRequest) -> Policy:
    if request.param == "reference":
        return selinux.REFERENCE
    return Policy(fedorapolicy.NAME, fedorapolicy.built())


@pytest.fixture(scope="module")
def labelled(
    build_root: Callable[[Recipe], Root], policy: Policy, tmp_path_factory: pytest.TempPathFactory
) -> Root:
    """A root with tinykdump and its module installed and its services enabled."""
    archive = service.archive()
    module = compiled(tmp_path_factory.mktemp("module"))

    def install(tree: Path) -> None:
        unpack = ["tar", "--no-overwrite-dir", "-x", "-C", str(tree)]
        subprocess.run(unpack, input=archive, check=True)
        enable = ["systemctl", "--quiet", "--root", str(tree), "enable"]
        subprocess.run([*enable, "tinykdump", "tinykdump-harvest"], check=True)

    is_reference = policy == selinux.REFERENCE
    modules = [*[FEDORA] * is_reference, AGENT, module]
    return selinux.labelled(build_root(selinux.RECIPE), policy, modules, install, archive,
                            labels=LABELS if is_reference else {})  # fmt: skip


@pytest.fixture(scope="module")
def vm(labelled: Root, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VM]:
    """The machine after its first boot, in which the service makes a key, an image and arms it."""
    directory = tmp_path_factory.mktemp("selinux")
    usual = stick.make(directory / "stick.img", size_mib=1024)
    machine = labelled.machine(
        "crashkernel=192M", *selinux.PARAMETERS, init=selinux.INIT, memory_mib=service.MEMORY_MIB,
        erst_kib=64, sticks=(Stick("stick", usual.path),),
    )  # fmt: skip
    with running(machine, directory / "vm") as awake:
        settled(awake)
        yield awake


def settled(vm: VM) -> None:
    vm.wait_for_agent()
    vm.run(["systemctl", "is-system-running", "--wait"], timeout=SETTLE_SECONDS)
    assert vm.get("/sys/fs/selinux/enforce") == b"1"


def armed(vm: VM) -> bool:
    done = vm.run(["tinykdump", "status", "--json"], check=False)
    return bool(json.loads(done.text)["armed"])


def types(vm: VM, *paths: str) -> set[str]:
    """The types of all files below these paths."""
    found = vm.shell(f"find {' '.join(paths)} -exec stat -c %C {{}} +").text.split()
    return {context.split(":")[2] for context in found}


def assert_labels(vm: VM) -> None:
    assert types(vm, "/var/lib/tinykdump/images") == {"kdump_var_lib_t"}
    assert types(vm, "/var/lib/tinykdump/keys") == {"tinykdump_key_t"}
    vm.shell("ls /var/lib/tinykdump/images/*/*.img /var/lib/tinykdump/keys/*/*.key")


def test_the_service_arms_the_machine(vm: VM) -> None:
    assert armed(vm)
    assert_labels(vm)


ROOT, USER = "system_u:system_r:unconfined_t:s0", "user_u:user_r:user_t:s0"

# The sandbox of a unit of ours, with a program that has the label of tinykdump.
TELL = r"""
cp /usr/bin/cat /usr/bin/tell
chcon --reference=/usr/bin/tinykdump /usr/bin/tell
sed -e '/^Exec\(StartPre\|Stop\|Reload\)=/d' -e '/^Type=/a StandardOutput=file:/run/told' \
    -e 's|^ExecStart=.*|ExecStart=/usr/bin/tell /proc/self/attr/current /proc/self/status|' \
    /usr/lib/systemd/system/$0.service >/run/systemd/system/tell.service
systemctl daemon-reload
systemctl restart tell
tr '\0' '\n' </run/told
rm /run/told
"""


@pytest.mark.parametrize("unit", UNITS)
def test_the_domain_of_the_services_is_theirs_without_new_privileges(vm: VM, unit: str) -> None:
    """The policy allows that transition; without its rule they would stay in systemd's, init_t."""
    told = vm.run(["sh", "-ec", TELL, unit]).text
    assert told.splitlines()[0] == "system_u:system_r:unconfined_service_t:s0"
    assert re.search(r"^NoNewPrivs:\t1$", told, re.MULTILINE)


def test_a_user_reads_neither_images_nor_keys(vm: VM) -> None:
    """As user_t, although with root's user id, so that only the policy can refuse it."""
    listed = vm.shell("ls /var/lib/tinykdump/images/*/*.img /var/lib/tinykdump/keys/*.kbx")
    for path in listed.text.split():
        cases = ((ROOT, path, 0), (USER, path, 1), (USER, "/etc/os-release", 0))
        for context, file, status in cases:
            read = f"exec runcon {context} head -c 4 {file} </dev/null >/dev/null 2>&1"
            done = vm.run(["runcon", ROOT, "sh", "-c", read], check=False)
            assert (context, file, done.status) == (context, file, status)


def knows_kexec(vm: VM) -> bool:
    """Whether the policy has the permissions for what kexec loads (selinuxfs)."""
    known = vm.run(["ls", "/sys/fs/selinux/class/system/perms"]).text.split()
    return "kexec_image_load" in known


def test_a_file_with_another_label_is_not_loaded(vm: VM, policy: Policy) -> None:
    """The kernel does look at the label of what kexec loads."""
    if not knows_kexec(vm):
        assert policy != selinux.REFERENCE
        pytest.skip("this policy does not know what kexec loads, so it allows it")
    (image,) = vm.shell("ls /var/lib/tinykdump/images/*/*.img").text.split()
    vm.run(["chcon", "-t", "var_lib_t", image])
    done = vm.run(["tinykdump", "-l"], check=False)
    assert done.status == 1
    assert b"kexec_file_load failed: Permission denied" in done.stderr
    vm.run(["restorecon", image])
    vm.run(["tinykdump", "-l"])
    assert armed(vm)


def test_a_scriptlet_builds_and_loads(vm: VM, labelled: Root) -> None:
    """As rpm_script_t, from nothing: labels come from the policy's transitions alone."""
    vm.shell("tinykdump unload; rm -r /var/lib/tinykdump; "
             "ln -sf /dev/null /etc/kernel/install.d/50-depmod.install")  # fmt: skip
    kver = labelled.kver
    scriptlet = ["runcon", "system_u:system_r:rpm_script_t:s0"]
    vm.run([*scriptlet, "kernel-install", "add", kver, f"/lib/modules/{kver}/vmlinuz"])
    assert armed(vm)
    assert_labels(vm)


def test_a_crash_is_saved_told_and_restored(vm: VM) -> None:
    vm.run(["tinykdump", "prepare", "--yes", "/dev/sda"])
    vm.run(["tinykdump", "-l"])
    vm.run(["sync"])
    mark = service.crash_and_wait(vm)
    assert "saved as" in vm.console
    settled(vm)
    assert armed(vm)
    assert "crash" in vm.get(str(notice.MOTD)).decode()
    (target,) = vm.shell("ls -d /var/crash/*").text.split()
    assert vm.shell(f"ls {target}").text.split() == ["vmcore", "vmcore-dmesg.txt"]
    assert mark in vm.shell(f"cat {target}/vmcore-dmesg.txt").text


# Domains of programs that are not ours and do not work for us, which do more in this systemd (262)
# than this policy (2.20260929) lets them.
OTHERS = {
    "getty_t",  # looks for credentials
    "syslogd_t",  # the journal: looks for pressure on memory
    "systemd_pstore_t",  # may not look at its own process, nor create files in its directory
    "systemd_sysusers_t",  # locks the password file
    "udev_t",  # looks up users with varlink
    "setfiles_t",  # restorecon above: gets files of the agent as standard input and output
}
# In which tinykdump and kexec run.
DOMAINS = {"kdump_t", "rpm_script_t", "unconfined_service_t", "unconfined_t"}
OURS = {"kdump_var_lib_t", "tinykdump_exec_t", "tinykdump_key_t"}
# What the test of labels asks for.
LABELLED = Denial("unconfined_t", "var_lib_t", "system", "kexec_initramfs_load")


def test_nothing_else_was_denied(vm: VM, policy: Policy) -> None:
    """In all of the above, in both boots. Fedora's policy is two years older than this systemd."""
    wanted = {LABELLED} if knows_kexec(vm) else set()
    denied = selinux.all_denials(vm)
    assert denied >= wanted
    rest = denied - wanted
    if policy == selinux.REFERENCE:
        rest = {each for each in rest if each.source not in OTHERS or each.target in OURS}
    else:
        rest = {each for each in rest if each.source in DOMAINS or each.target in OURS}
    assert rest == set()
