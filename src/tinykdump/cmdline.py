# SPDX-License-Identifier: GPL-2.0-or-later
"""The crash kernel's command line. Text in, text out; no I/O here."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

# What is taken over from the running kernel: how to reach its console and how to live with
# its hardware. Everything else (root=, quiet, hugepages=, crashkernel=, ...) was meant for
# a whole system, and costs memory or does harm in this one.
KEPT = (
    "acpi", "acpi_*", "amd_iommu", "clocksource", "console", "dis_ucode_ldr", "earlycon",
    "earlyprintk", "efi", "intel_iommu", "iommu", "iommu.*", "lapic", "loglevel", "memmap",
    "module.sig_enforce", "nmi_watchdog", "no_timer_check", "noapic", "nolapic", "nox2apic",
    "pci", "pcie_aspm", "pstore.*", "ramoops.*", "random.trust_cpu", "reboot", "tsc",
    "usb-storage.*", "usb_storage.*", "usbcore.autosuspend", "usbcore.quirks", "xhci_hcd.*",
)  # fmt: skip

# What kdump of every distribution has found to be right on x86, and what follows from a
# small image and a small reservation.
ADDED = (
    "irqpoll",
    "nr_cpus=1",
    "reset_devices",
    "cgroup_disable=memory",
    "mce=off",
    "numa=off",
    "panic=10",  # a crash kernel that crashes must not stay there
    "acpi_no_memhotplug",
    "transparent_hugepage=never",
    "nokaslr",
    "hest_disable",
    "novmcoredd",
    "pcie_ports=compat",
    "kfence.sample_interval=0",
    "cma=0",
    "hugetlb_cma=0",
    # tmpfs, the default, ends at half of the memory; ramfs at its end.
    "rootfstype=ramfs",
    # /dev/kmsg from user space is rate limited otherwise, and it is all that is said.
    "printk.devkmsg=on",
)

_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+')  # values may be quoted, as in next_arg()


def crash_cmdline(running: str, append: str, pstore: Iterable[str] = ()) -> str:
    """What the crash kernel is started with.

    ``running`` is the running kernel's command line as in /proc/cmdline, ``append`` what the
    configuration adds, ``pstore`` what keeps the crash kernel's log; later words win in the
    kernel.
    """
    kept = [word for word in _WORD.findall(running.split(" -- ", 1)[0]) if _is_kept(word)]
    return " ".join([*kept, *ADDED, *pstore, *_WORD.findall(append)])


def module_parameters(cmdline: str, module: str) -> str:
    """The parameters that a kernel's command line has for a module, as insmod takes them.

    A kernel hands them to what is built in only; for a module it is modprobe that does it, and
    the crash kernel has none.
    """
    prefix = f"{module}."
    found = []
    for word in _WORD.findall(cmdline):
        quote = word[: word.startswith('"')]  # a quote may be around the name, too
        if _name(word).startswith(prefix):
            found.append(quote + word[len(quote) + len(prefix) :])
    return " ".join(found)


def _is_kept(word: str) -> bool:
    return any(fnmatchcase(_name(word), pattern.replace("-", "_")) for pattern in KEPT)


def _name(word: str) -> str:
    return word.strip('"').split("=", 1)[0].replace("-", "_")
