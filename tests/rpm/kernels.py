# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel packages that are divided, and have the scriptlets, as Fedora's and openSUSE's are.

The order is that of Fedora's kernel.spec: depmod in %post of kernel-modules and in %posttrans of
kernel-modules-core, kernel-install in %posttrans and %preun of kernel-core. The kernel itself is
Debian's.
"""

import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

# What an image needs for a stick; kernel-modules-core has the rest of these.
DIRECTORIES = ("crypto", "drivers/scsi", "drivers/usb/host", "drivers/usb/storage",
               "drivers/usb/core", "drivers/usb/common", "fs/exfat", "fs/fat", "fs/nls", "lib",
               "drivers/hid", "fs/ext4", "fs/jbd2", "fs/mbcache")  # fmt: skip
LATER = "drivers/usb"  # in kernel-modules

FEDORA = """
Name: kernel
Version: {version}
Release: 1
Summary: Stand-in for Fedora's kernel
License: GPL-2.0-only
Requires: kernel-core-uname-r = {uname}
Requires: kernel-modules-uname-r = {uname}
Provides: installonlypkg(kernel)
%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
%description
%{{summary}}.

%package core
Summary: Stand-in
Provides: installonlypkg(kernel)
Provides: kernel-core-uname-r = {uname}
Provides: kernel-uname-r = {uname}
Requires: kernel-modules-core-uname-r = {uname}
Requires(pre): /usr/bin/kernel-install
%description core
%{{summary}}.

%package modules-core
Summary: Stand-in
Provides: installonlypkg(kernel-module)
Provides: kernel-modules-core-uname-r = {uname}
Requires: kernel-uname-r = {uname}
%description modules-core
%{{summary}}.

%package modules
Summary: Stand-in
Provides: installonlypkg(kernel-module)
Provides: kernel-modules-uname-r = {uname}
Requires: kernel-uname-r = {uname}
Requires: kernel-modules-core-uname-r = {uname}
%description modules
%{{summary}}.

%install
cp -a {tree} %{{buildroot}}/

%post core
mkdir -p /var/lib/rpm-state/kernel
touch /var/lib/rpm-state/kernel/installing_core_{kver}

%posttrans core
rm -f /var/lib/rpm-state/kernel/installing_core_{kver}
/bin/kernel-install add {kver} /lib/modules/{kver}/vmlinuz || exit $?

%preun core
entry_type=""
/bin/kernel-install --help | grep -q -- '--entry-type=' && entry_type="--entry-type type1"
/bin/kernel-install remove {kver} $entry_type || exit $?

%posttrans modules-core
/sbin/depmod -a {kver}

%post modules
/sbin/depmod -a {kver}

%postun modules
/sbin/depmod -a {kver}

%files
%files core
/lib/modules/{kver}/vmlinuz
/lib/modules/{kver}/modules.*
%files modules-core
%dir /lib/modules/{kver}
%dir /lib/modules/{kver}/kernel
{core}
%files modules
/lib/modules/{kver}/kernel/{later}
"""

# openSUSE's has no scriptlet that calls kernel-install; what else its scriptlets do is left out.
SUSE = """
Name: kernel-default
Version: {version}
Release: 1
Summary: Stand-in for openSUSE's kernel
License: GPL-2.0-only
Provides: multiversion(kernel)
%global debug_package %{{nil}}
%global __os_install_post %{{nil}}
%description
%{{summary}}.
%install
cp -a {tree} %{{buildroot}}/
%post
/sbin/depmod -a {kver}
%files
/lib/modules/{kver}
"""


def build(debs: Iterable[Path], output: Path) -> tuple[str, tuple[Path, ...]]:
    """The packages of a kernel of Debian's; its version first."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for deb in debs:
            subprocess.run(["dpkg-deb", "--extract", deb, top / "deb"], check=True)
        (boot,) = (top / "deb/boot").glob("vmlinuz-*")
        kver = boot.name.removeprefix("vmlinuz-")
        source, target = top / f"deb/usr/lib/modules/{kver}", top / f"tree/lib/modules/{kver}"
        target.mkdir(parents=True)
        for path in source.glob("modules.*"):
            path.rename(target / path.name)
        boot.rename(target / "vmlinuz")
        there = [each for each in DIRECTORIES if (source / "kernel" / each).exists()]
        for each in there:
            (target / "kernel" / each).parent.mkdir(parents=True, exist_ok=True)
            (source / "kernel" / each).rename(target / "kernel" / each)
        core = sorted({each.split("/")[0] for each in there} - {"drivers"})
        names = [f"/lib/modules/{kver}/kernel/{each}" for each in core]
        names += [f"/lib/modules/{kver}/kernel/drivers/{each}" for each in ("hid", "scsi")]
        for text in (FEDORA, SUSE):
            # A version cannot have a hyphen.
            values = {"uname": kver.replace("-", "_"), "version": kver.split("+")[0]}
            values = {"uname": kver.replace("-", "_"), "version": kver.split("+")[0]}
            spec = text.format(kver=kver, tree=top / "tree/lib", core="\n".join(names), later=LATER,
                               **values)  # fmt: skip
            (top / "kernel.spec").write_text(spec)
            command = ["rpmbuild", "-bb", "--quiet", f"--define=_topdir {top}/rpm",
                       f"--define=_rpmdir {output}", "--define=_buildhost localhost",
                       "--define=_binary_payload w0.gzdio", "--nodeps",
                       str(top / "kernel.spec")]  # fmt: skip
            subprocess.run(command, check=True)
    return kver, tuple(sorted(output.glob("**/kernel*.rpm")))
