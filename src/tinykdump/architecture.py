# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between architectures: a table of values. No I/O here.

No other module names an architecture. The header of a kernel image says which one it is for, and
so does the ELF header of a program.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Header:
    """The header of a kernel image that kexec can load.

    Places are offsets in bytes; numbers are little-endian.
    """

    name: str  # what such an image is called
    size: int  # bytes
    magic: tuple[int, bytes]  # place and value
    protocol: tuple[int, int]  # place of the header's version (16 bits), and the oldest one
    init_size: int  # place of the memory size that the kernel needs (32 bits)
    release: tuple[int, int]  # place of a pointer (16 bits; 0: none), and its base


@dataclass(frozen=True)
class Emulator:
    """How QEMU runs a kernel of an architecture in a guest."""

    programs: tuple[str, ...]  # its names
    packages: str  # that have it, for hints
    board: str  # the machine type
    parameters: tuple[str, ...]  # of a kernel: its console is the serial port


@dataclass(frozen=True)
class Architecture:
    """An architecture whose kernels tinykdump can load."""

    header: Header
    section: int  # bytes of memory that share one piece of the kernel's memory map
    # An option for smaller sections, as in a .config, and their bytes; kernel/config/crash.config
    # turns it on.
    small_section: tuple[str, int]
    kept: tuple[str, ...]  # patterns of parameters that the crash kernel inherits, see cmdline.py
    added: tuple[str, ...]  # parameters that are added for the crash kernel
    controllers: tuple[str, ...]  # drivers of the USB host controllers that a machine can have
    emulator: Emulator

    def section_of(self, kernel_config: str) -> int:
        """The section of a kernel with that .config."""
        option, small = self.small_section
        return small if option in kernel_config.splitlines() else self.section


@dataclass(frozen=True)
class Machine:
    """A processor in ELF terms, for which placeholder libraries can be made."""

    number: int  # e_machine
    trap: bytes  # an instruction that always traps


X86_64 = Architecture(
    # Documentation/arch/x86/boot.rst: init_size exists since 2.10.
    header=Header(
        name="bzImage",
        size=0x264,
        magic=(0x202, b"HdrS"),
        protocol=(0x206, 0x20A),
        init_size=0x260,
        release=(0x20E, 0x200),
    ),
    section=128 << 20,  # SECTION_SIZE_BITS
    small_section=("CONFIG_X86_SMALL_SECTIONS=y", 16 << 20),
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
    # Parameters that distributions use for kdump on x86, and others that save memory.
    added=(
        "irqpoll",
        "nr_cpus=1",
        "reset_devices",
        "cgroup_disable=memory",
        "mce=off",
        "numa=off",
        "panic=10",  # a crash kernel that panics must reboot
        "acpi_no_memhotplug",
        "transparent_hugepage=never",
        "nokaslr",
        "hest_disable",
        "novmcoredd",
        "pcie_ports=compat",
        "kfence.sample_interval=0",
        "cma=0",
        "hugetlb_cma=0",
        # After one fragmented allocation, the kernel would keep up to 4 MiB free for a while.
        "sysctl.vm.watermark_boost_factor=0",
        # Otherwise the buffers of drivers come on top of the first peak (memory.py).
        "initramfs_async=0",
        # tmpfs, the default, is limited to half of the memory; ramfs is not.
        "rootfstype=ramfs",
        # Otherwise /dev/kmsg is rate limited, and the crash side logs only there.
        "printk.devkmsg=on",
    ),
    controllers=("xhci_pci", "xhci_pci_renesas", "ehci_pci", "ohci_pci", "uhci_hcd",
                 "xhci_plat_hcd"),
    emulator=Emulator(
        programs=("qemu-system-x86_64", "/usr/libexec/qemu-kvm"),
        packages="qemu-system-x86 (on Fedora: qemu-system-x86-core, on RHEL: qemu-kvm, on SUSE: "
                 "qemu-x86)",
        board="q35",
        # On a busy host, a guest can pause for longer than the check of the timer tolerates.
        parameters=("earlyprintk=serial,ttyS0,115200", "console=ttyS0,115200", "no_timer_check"),
    ),
)  # fmt: skip

ARCHITECTURES = (X86_64,)

# pyelftools' names of e_machine: x86 ud2, arm64 udf #0.
MACHINES: Mapping[str, Machine] = {
    "EM_X86_64": Machine(62, b"\x0f\x0b"),
    "EM_AARCH64": Machine(183, b"\x00\x00\x00\x00"),
}
