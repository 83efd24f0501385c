# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy module of tinykdump-selinux, compiled by the spec's commands and linked.

It is linked with a small policy that has the types of Fedora's that it names, and with Fedora's
own if the environment names its source (tests/vmtest/fedorapolicy.py). tests/vm/test_selinux.py
runs it.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.rpm.test_spec import rpmspec
from tests.vmtest import fedorapolicy

SOURCE = Path(__file__).parents[2] / "src/selinux"
# Converts a compiled module for the linker (policycoreutils).
TO_CIL = "/usr/libexec/selinux/hll/pp"

TYPES = ("boot_t", "kdump_var_lib_t", "modules_object_t", "rpm_script_t", "script_tmp_t", "tmpfs_t",
         "unconfined_service_t", "user_tmp_t", "var_lib_t")  # fmt: skip
RUNS = ("rpm_script_t", "unconfined_service_t", "unconfined_t")

READERS = {"backup_t": "security_file_type", "httpd_t": "non_security_file_type"}

POLICY = """
(class dir (create search)) (class file (read)) (class system ({permissions}))
(classorder (dir file system))
(sid kernel) (sidorder (kernel)) (sidcontext kernel (system_u object_r var_lib_t (low low)))
(sensitivity s0) (sensitivityorder (s0)) (category c0) (categoryorder (c0))
(sensitivitycategory s0 (c0)) (level low (s0)) (levelrange any (low low))
(mls true) (handleunknown allow) (policycap open_perms)
(user system_u) (role object_r) (role system_r) (userrole system_u system_r)
(userrole system_u object_r) (userlevel system_u low) (userrange system_u any)
(typeattribute cil_gen_require) (roleattribute cil_gen_require)
"""


def compiled(directory: Path) -> Path:
    """tinykdump.pp, made in that directory by the lines of %build."""
    build = "\n".join(rpmspec("fedora", "-P", "--without=kernel"))
    commands = re.findall(r"^(?:checkmodule|semodule_package) .*$", build, re.MULTILINE)
    assert len(commands) == 2
    (directory / "src").symlink_to(SOURCE.parent)
    subprocess.run(["sh", "-euc", "\n".join(commands)], cwd=directory, check=True)
    return directory / "tinykdump.pp"


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("selinux"))


def to_cil(module: Path, directory: Path) -> None:
    done = subprocess.run([TO_CIL, str(module)], check=True, capture_output=True)
    (directory / f"{module.stem}.cil").write_bytes(done.stdout)


def linked(module: Path, directory: Path, *, permissions: bool, unconfined: bool) -> Path:
    """A policy with the module; with or without what it uses where it is there."""
    known = "module_load" + " kexec_image_load kexec_initramfs_load" * permissions
    types = [*TYPES, *["unconfined_t"] * unconfined]
    base = POLICY.format(permissions=known) + "".join(
        f"(type {name}) (roletype object_r {name}) (roletype system_r {name})\n" for name in types
    )
    # What backup programs may read, and what many others may.
    base += "(typeattribute file_type) (typeattribute security_file_type)\n"
    base += "(typeattribute non_security_file_type)\n"
    base += "(typeattributeset file_type (var_lib_t kdump_var_lib_t))\n"
    base += "(typeattributeset non_security_file_type (var_lib_t kdump_var_lib_t))\n"
    # What programs have on a tmpfs.
    base += "(typeattribute tmpfsfile) (typeattributeset tmpfsfile (user_tmp_t script_tmp_t))\n"
    for name, attribute in READERS.items():
        base += f"(type {name}) (roletype system_r {name})\n"
        base += f"(allow {name} {attribute} (file (read)))\n"
    (directory / "base.cil").write_text(base + "(allow var_lib_t self (system (module_load)))\n")
    to_cil(module, directory)
    command = ["secilc", "--mls", "true", "-o", "policy", "-f", "contexts", "base.cil",
               "tinykdump.cil"]  # fmt: skip
    subprocess.run(command, cwd=directory, check=True)
    return directory / "policy"


def search(policy: Path, *words: str) -> set[str]:
    done = subprocess.run(["sesearch", *words, str(policy)], check=True, capture_output=True,
                          text=True)  # fmt: skip
    return set(done.stdout.split("\n")) - {""}


@pytest.mark.parametrize("permissions", [True, False])
@pytest.mark.parametrize("unconfined", [True, False])
def test_what_the_module_allows(
    module: Path, tmp_path: Path, permissions: bool, unconfined: bool
) -> None:
    """kexec's files for those that run tinykdump, and nothing else."""
    policy = linked(module, tmp_path, permissions=permissions, unconfined=unconfined)
    runs = RUNS[: 2 + unconfined]
    rules = search(policy, "--allow") - {"allow var_lib_t var_lib_t:system module_load;"}
    rules = {line for line in rules if line.split()[1] not in READERS}
    both = "{ kexec_image_load kexec_initramfs_load }"
    assert rules == (
        {
            *(f"allow {name} kdump_var_lib_t:system {both};" for name in runs),
            *(f"allow {name} {kernel}:system kexec_image_load;" for name in runs
              for kernel in ("boot_t", "modules_object_t", "tmpfs_t", "tmpfsfile", name)),
        } if permissions else set()
    )  # fmt: skip
    assert search(policy, "--type_trans") == {
        line
        for name in runs
        for line in (
            f"type_transition {name} var_lib_t:dir kdump_var_lib_t tinykdump;",
            f"type_transition {name} kdump_var_lib_t:dir tinykdump_key_t keys;",
        )
    }


def test_the_key_is_a_secret_of_the_system(module: Path, tmp_path: Path) -> None:
    """Like passwords: what may read all files that are no secrets may not read it."""
    policy = linked(module, tmp_path, permissions=True, unconfined=True)
    found = {
        kind: {line.split()[1] for line in search(policy, "--allow", "-c", "file", "-t", kind)}
        for kind in ("tinykdump_key_t", "kdump_var_lib_t")
    }
    assert found == {"tinykdump_key_t": {"backup_t"}, "kdump_var_lib_t": {"httpd_t"}}


# What may open each secret of the system, in Fedora's policy of October 2024: backups, checks of
# all files, package managers, the kernel, and what is unconfined.
READ_SECRETS = {
    "aide_t", "amanda_t", "bacula_t", "files_unconfined_type", "kernel_t",
    "pegasus_openlmi_logicalfile_t", "quota_t", "rpm_script_t", "rpm_t", "sectoolm_t", "snapperd_t",
}  # fmt: skip


@pytest.mark.timeout(1200)
def test_who_may_read_what_in_fedoras_policy(module: Path, tmp_path: Path) -> None:
    """The images are for kdump_t and others, too; no type of the policy's own suits the key."""
    packages = fedorapolicy.built().glob("usr/share/selinux/targeted/*.pp")
    for package in (*packages, module):
        to_cil(package, tmp_path)
    # -N: what container-selinux lets containers do breaks a neverallow rule of another module.
    # Debian's setools does not know the newest version of the format.
    command = ["secilc", "-N", "-c", "33", "--mls", "true", "-o", "policy", "-f", "contexts"]
    names = sorted(path.name for path in tmp_path.glob("*.cil"))
    subprocess.run([*command, *names], cwd=tmp_path, check=True)
    opens = {
        kind: {line.split()[1] for line in search(tmp_path / "policy", "--allow", "-t", kind,
                                                  "-c", "file", "-p", "open")}
        for kind in ("tinykdump_key_t", "kdump_var_lib_t", "gpg_secret_t", "var_lib_t")
    }  # fmt: skip
    assert opens["tinykdump_key_t"] == READ_SECRETS
    assert opens["kdump_var_lib_t"] > READ_SECRETS | {"kdump_t"}
    assert {"httpd_t", "user_t"} <= opens["gpg_secret_t"] | opens["var_lib_t"]
    started = search(tmp_path / "policy", "--type_trans", "-s", "init_t", "-c", "process")
    assert started >= {
        "type_transition init_t bin_t:process unconfined_service_t;",
        "type_transition init_t kdump_exec_t:process kdump_t;",
    }
    for runs in RUNS[:2]:
        assert search(tmp_path / "policy", "--type_trans", "-s", runs, "-c", "dir") >= {
            f"type_transition {runs} var_lib_t:dir kdump_var_lib_t tinykdump;",
            f"type_transition {runs} kdump_var_lib_t:dir tinykdump_key_t keys;",
        }


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/tinykdump", "kdump_var_lib_t"),
        ("/var/lib/tinykdump/images/6.17.0/initramfs-0.img", "kdump_var_lib_t"),
        ("/var/lib/tinykdump/keys", "tinykdump_key_t"),
        ("/var/lib/tinykdump/keys/private-keys-v1.d/0.key", "tinykdump_key_t"),
    ],
)
def test_labels(module: Path, tmp_path: Path, path: str, kind: str) -> None:
    """The last line that fits a path counts, as for restorecon(8)."""
    linked(module, tmp_path, permissions=True, unconfined=True)
    lines = [line.split() for line in (tmp_path / "contexts").read_text().splitlines()]
    found = [context for pattern, context in lines if re.fullmatch(pattern, path)]
    assert found[-1] == f"system_u:object_r:{kind}:s0"


def test_kexec_is_not_in_the_unit() -> None:
    """init_t would start it as kdump_t, which may do less than tinykdump."""
    unit = (SOURCE.parent / "systemd/tinykdump.service").read_text()
    commands = re.findall(r"^Exec\w+=(.*)$", unit, re.MULTILINE)
    assert commands
    assert {command.split()[0] for command in commands} == {"/usr/bin/tinykdump"}
