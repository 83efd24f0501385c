# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest under SELinux: Debian with a policy, and labels in its root file system.

The policy is changed and the files are labelled while the image is made, because an emulated guest
takes minutes for each.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vmtest import cache, rootfs
from tests.vmtest.rootfs import SYSTEMD, Recipe, Root
from tests.vmtest.vm import VM

# Of a suite whose kernel checks what kexec loads (Linux 6.15), and whose policy knows that.
RECIPE = Recipe(suite="forky", packages=(
    *rootfs.PACKAGES, "mount", "policycoreutils", "selinux-policy-default", "selinux-utils",
))  # fmt: skip

# Debian's kernels start AppArmor otherwise. The others are for a journal that has all denials: from
# the first process on, and when the guest is too slow to read them.
PARAMETERS = ("security=selinux", "enforcing=1", "audit=1", "audit_backlog_limit=8192")
INIT = (*SYSTEMD, "systemd.wants=systemd-journald-audit.socket")

# Path -> type of what the policy does not know, or not as a test wants it.
AGENT = {"/run/tinykdump-vm(/.*)?": "unconfined_exec_t"}
# The agent acts as root does who has logged in.
_DROP_IN = "etc/systemd/system/tinykdump-vm-agent.service.d/selinux.conf"
_LOGIN = "[Service]\nSELinuxContext=unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023\n"

_DENIED = re.compile(r"avc: +denied +\{ (.*) \} for .*scontext=(\S+) tcontext=(\S+) tclass=(\S+)")


@dataclass(frozen=True)
class Policy:
    """A policy of a root."""

    name: str  # of its directory in /etc/selinux
    files: Path | None = None  # what a root gets; None: Debian's package is installed in it

    @property
    def contexts(self) -> str:
        return f"etc/selinux/{self.name}/contexts/files/file_contexts"

    def install(self, tree: Path, modules: Sequence[Path]) -> None:
        """Make it the policy of that root, with these modules."""
        own: list[str] = []
        if self.files:
            subprocess.run(["cp", "-a", f"{self.files}/.", tree], check=True)
            packages = sorted((tree / "usr/share/selinux" / self.name).glob("*.pp"))
            own = [f"/{path.relative_to(tree)}" for path in packages]
            settings = f"SELINUX=enforcing\nSELINUXTYPE={self.name}\n"
            (tree / "etc/selinux/config").write_text(settings, encoding="ascii")
        for module in modules:
            shutil.copy(module, tree / "root")
        names = [f"/root/{module.name}" for module in modules]
        store = ["semodule", "--noreload", "--store", self.name]
        if own:
            _chroot(tree, *store, "--priority=100", "--install", *own)
        _chroot(tree, *store, "--install", *names)


REFERENCE = Policy("default")


def labelled(
    root: Root,
    policy: Policy,
    modules: Sequence[Path],
    install: Callable[[Path], None],
    *inputs: object,
    labels: Mapping[str, str],
) -> Root:
    """That root with that policy and modules in it, with what ``install`` adds, and with labels.

    ``labels`` is like AGENT, and ``inputs`` is everything that determines what install() does.
    """
    kinds = AGENT | dict(labels)

    def build(directory: Path) -> None:
        made = Root(directory)
        subprocess.run(["cp", "-a", "--reflink=auto", root.tree, made.tree], check=True)
        install(made.tree)
        lines = [f"{path}\tsystem_u:object_r:{kind}:s0\n" for path, kind in kinds.items()]
        (made.tree / _DROP_IN).parent.mkdir()
        (made.tree / _DROP_IN).write_text(_LOGIN, encoding="ascii")
        policy.install(made.tree, modules)
        (made.tree / f"{policy.contexts}.local").write_text("".join(lines), encoding="ascii")
        _chroot(made.tree, "setfiles", "-F", f"/{policy.contexts}", "/")
        rootfs.make_image(made.tree, made.image, size_mib=RECIPE.size_mib)
        for name in ("kver", "vmlinuz"):
            shutil.copy(root.directory / name, directory)

    policies = [policy.name, policy.files and policy.files.name, list(modules)]
    key = cache.key(root.directory.name, policies, kinds, _LOGIN, inputs, 2)
    return Root(cache.entry("selinux", key, build))


def _chroot(tree: Path, *command: str) -> None:
    subprocess.run(["chroot", tree, *command], check=True, stdout=subprocess.DEVNULL)


@dataclass(frozen=True, order=True)
class Denial:
    """What the policy did not allow; types without the rest of their contexts."""

    source: str
    target: str
    kind: str  # the class of the target
    permissions: str


def denials(log: str) -> set[Denial]:
    """The denials in a log, of the kernel or of the journal."""
    found = _DENIED.findall(log)
    return {Denial(s.split(":")[2], t.split(":")[2], kind, what) for what, s, t, kind in found}


def all_denials(vm: VM) -> set[Denial]:
    """The denials since the guest was installed."""
    journal = ["journalctl", "--no-pager", "--output=cat", "_AUDIT_TYPE_NAME=AVC"]
    return denials(vm.run(journal).text) | denials(vm.run(["dmesg"]).text)
