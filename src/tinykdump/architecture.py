# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between the kernels of processors: a table of values. No I/O here.

Nothing else asks for an architecture by its name. A kernel image says of which one it is by the
way it begins, a program by its ELF header.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Header:
    """What the image of a kernel that kexec loads says of itself.

    Places are in bytes from its start; numbers are little-endian.
    """

    name: str  # what such an image is called
    size: int  # bytes of it
    magic: tuple[int, bytes]  # place, and what stands there
    protocol: tuple[int, int]  # place of the header's version (16 bits), and the least that will do
    init_size: int  # place of the bytes that the kernel wants to run in (32 bits)
    release: tuple[int, int]  # place of a pointer (16 bits; 0: none), and what it counts from


@dataclass(frozen=True)
class Architecture:
    """One of them."""

    header: Header
    section: int  # bytes of memory that the kernel has a part of its map of the memory for
    kept: tuple[str, ...]  # patterns of parameters that the crash kernel takes over, see cmdline.py
    added: tuple[str, ...]  # parameters that the crash kernel gets
    controllers: tuple[str, ...]  # drivers of the USB host controllers that a machine can have


@dataclass(frozen=True)
class Machine:
    """A processor as ELF has it, whose programs an image can hold placeholders for."""

    number: int  # e_machine
    trap: bytes  # an instruction that always traps


X86_64 = Architecture(
    # Documentation/arch/x86/boot.rst: init_size is there since 2.10.
    header=Header(
        name="bzImage",
        size=0x264,
        magic=(0x202, b"HdrS"),
        protocol=(0x206, 0x20A),
        init_size=0x260,
        release=(0x20E, 0x200),
    ),
    section=128 << 20,  # SECTION_SIZE_BITS
    kept=(
        "8250.*", "acpi", "acpi_*", "amd_iommu", "clearcpuid", "clocksource", "console",
        "cpuidle.off", "dis_ucode_ldr", "earlycon", "earlyprintk", "efi", "ehci_hcd.*", "hpet",
        "idle", "ignore_loglevel", "initcall_blacklist", "intel_idle.max_cstate", "intel_iommu",
        "intremap", "iommu", "iommu.*", "ivrs_*", "lapic", "loglevel", "mem_encrypt", "memmap",
        "microcode", "modprobe.blacklist", "module.sig_enforce", "module_blacklist", "nmi_watchdog",
        "no_timer_check", "noapic", "nohpet", "nolapic", "nox2apic", "noxsave", "ohci_hcd.*", "pci",
        "pcie_aspm", "pcie_port_pm", "processor.max_cstate", "pstore.*", "ramoops.*",
        "random.trust_cpu", "reboot", "scsi_mod.*", "tsc", "uhci_hcd.*", "usb-storage.*",
        "usb_storage.*", "usbcore.*", "x2apic_phys", "xhci_hcd.*",
    ),
    # What kdump of every distribution has found to be right on x86, and what follows from a
    # small image and a small reservation.
    added=(
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
    ),
    controllers=("xhci_pci", "xhci_pci_renesas", "ehci_pci", "ohci_pci", "uhci_hcd",
                 "xhci_plat_hcd"),
)  # fmt: skip

ARCHITECTURES = (X86_64,)

# By the name that pyelftools has for e_machine: x86 ud2, arm64 udf #0.
MACHINES: Mapping[str, Machine] = {
    "EM_X86_64": Machine(62, b"\x0f\x0b"),
    "EM_AARCH64": Machine(183, b"\x00\x00\x00\x00"),
}
