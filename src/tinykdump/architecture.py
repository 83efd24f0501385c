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
    init_size: tuple[int, str]  # place of the memory size that the kernel needs, for struct.unpack
    # Place of the header's version (16 bits), and the oldest one; None: init_size says enough.
    protocol: tuple[int, int] | None = None
    # Place of a pointer to the release (16 bits; 0: none), and its base; None: the image is not
    # packed, and has its banner.
    release: tuple[int, int] | None = None


@dataclass(frozen=True)
class Layout:
    """The units of a kernel's memory, in bytes."""

    page: int = 4 << 10
    section: int = 128 << 20  # shares one piece of the kernel's memory map (SECTION_SIZE_BITS)


@dataclass(frozen=True)
class Saving:
    """What a parameter of the crash kernel saves."""

    parameter: str
    bytes: int  # less that are needed for a dump (make bench: floor-stock, floor-patched)
    option: str = ""  # without which the parameter saves nothing, as in a .config


@dataclass(frozen=True)
class Emulator:
    """How QEMU runs a kernel of an architecture in a guest."""

    programs: tuple[str, ...]  # its names
    packages: str  # that have it, for hints
    board: str  # the machine type
    cpu: str  # the processor, where it is emulated
    parameters: tuple[str, ...]  # of a kernel: its console is the serial port


@dataclass(frozen=True)
class Architecture:
    """An architecture whose kernels tinykdump can load."""

    header: Header
    layout: Layout  # of a kernel with none of these options, which are as in a .config
    layouts: Mapping[str, Layout]
    kept: tuple[str, ...]  # patterns of parameters that the crash kernel inherits, see cmdline.py
    added: tuple[str, ...]  # parameters that are added for the crash kernel
    controllers: tuple[str, ...]  # drivers of the USB host controllers that a machine can have
    emulator: Emulator
    # Options, as in a .config, that together make a kernel whose memory makedumpfile up to 1.7.9
    # cannot read.
    unreadable: tuple[frozenset[str], ...] = ()
    # A parameter for page tables of fewer levels, and the end of the memory that they reach.
    fewer_levels: tuple[str, int] | None = None
    savings: tuple[Saving, ...] = ()

    def layout_of(self, kernel_config: str) -> Layout:
        """The layout of a kernel with that .config."""
        found = (self.layouts[line] for line in kernel_config.splitlines() if line in self.layouts)
        return next(found, self.layout)


@dataclass(frozen=True)
class Machine:
    """A processor in ELF terms, for which placeholder libraries can be made."""

    number: int  # e_machine
    trap: bytes  # an instruction that always traps


# Parameters of drivers and of the kernel that have the same meaning everywhere.
_KEPT = (
    "acpi", "acpi_*", "clocksource", "console", "cpuidle.off", "earlycon", "efi", "ehci_hcd.*",
    "ignore_loglevel", "initcall_blacklist", "iommu", "iommu.*", "loglevel", "modprobe.blacklist",
    "module.sig_enforce", "module_blacklist", "nmi_watchdog", "ohci_hcd.*", "pci", "pcie_aspm",
    "pcie_port_pm", "pstore.*", "ramoops.*", "random.trust_cpu", "reboot", "scsi_mod.*",
    "usb-storage.*", "usb_storage.*", "usbcore.*", "xhci_hcd.*",
)  # fmt: skip

# Parameters that distributions use for kdump, and others that save memory.
_ADDED = (
    "irqpoll",
    "nr_cpus=1",
    "reset_devices",
    "cgroup_disable=memory",
    # Otherwise a kernel with CONFIG_MEMCG gives each chunk of per-CPU memory an array of pointers
    # also without that controller (pcpu_alloc_chunk() in mm/percpu.c), on x86 of 4 MiB.
    "cgroup.memory=nokmem",
    "numa=off",
    "panic=10",  # a crash kernel that panics must reboot
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
    # Where built-in ciphers are tested at boot, that takes a third of the time until /init. The
    # kernel tests them nevertheless if FIPS asks for it (crypto/testmgr.c).
    "cryptomgr.notests",
)

X86_64 = Architecture(
    # Documentation/arch/x86/boot.rst: init_size exists since 2.10.
    header=Header(
        name="bzImage",
        size=0x264,
        magic=(0x202, b"HdrS"),
        init_size=(0x260, "<I"),
        protocol=(0x206, 0x20A),
        release=(0x20E, 0x200),
    ),
    layout=Layout(),
    # kernel/config/crash.config turns this on.
    layouts={"CONFIG_X86_SMALL_SECTIONS=y": Layout(section=16 << 20)},
    kept=(
        *_KEPT,
        "8250.*", "amd_iommu", "clearcpuid", "dis_ucode_ldr", "earlyprintk", "hpet", "idle",
        "intel_idle.max_cstate", "intel_iommu", "intremap", "ivrs_*", "lapic", "mem_encrypt",
        "memmap", "microcode", "no_timer_check", "noapic", "nohpet", "nolapic", "nox2apic",
        "noxsave", "processor.max_cstate", "tsc", "uhci_hcd.*", "x2apic_phys",
    ),
    added=(*_ADDED, "mce=off", "acpi_no_memhotplug"),
    fewer_levels=("no5lvl", 1 << 46),  # MAX_PHYSMEM_BITS
    savings=(
        # With five levels, the index of all sections that there can be takes 2 MiB.
        Saving("no5lvl", 2 << 20),
        # It leaves 4 MiB more free, but the least memory that saves a dump is 2 MiB less.
        Saving("cgroup.memory=nokmem", 2 << 20, "CONFIG_MEMCG=y"),
    ),
    controllers=("xhci_pci", "xhci_pci_renesas", "ehci_pci", "ohci_pci", "uhci_hcd",
                 "xhci_plat_hcd"),
    emulator=Emulator(
        programs=("qemu-system-x86_64", "/usr/libexec/qemu-kvm"),
        packages="qemu-system-x86 (on Fedora: qemu-system-x86-core, on RHEL: qemu-kvm, on SUSE: "
                 "qemu-x86)",
        board="q35",
        cpu="max",
        # On a busy host, a guest can pause for longer than the check of the timer tolerates.
        parameters=("earlyprintk=serial,ttyS0,115200", "console=ttyS0,115200", "no_timer_check"),
    ),
)  # fmt: skip

AARCH64 = Architecture(
    # Documentation/arch/arm64/booting.rst: image_size exists since 3.17.
    header=Header(name="Image", size=0x40, magic=(0x38, b"ARM\x64"), init_size=(0x10, "<Q")),
    layout=Layout(),
    # arch/arm64/include/asm/sparsemem.h
    layouts={
        "CONFIG_ARM64_16K_PAGES=y": Layout(page=16 << 10),
        "CONFIG_ARM64_64K_PAGES=y": Layout(page=64 << 10, section=512 << 20),
    },
    kept=(
        *_KEPT,
        # Without these, the firmware's clocks and supplies of a board can be turned off.
        "clk_ignore_unused", "pd_ignore_unused", "regulator_ignore_unused",
        "arm-smmu.*", "arm-smmu-v3.*", "arm64.*", "irqchip.*", "keep_bootcon",
    ),
    added=_ADDED,
    controllers=("xhci_pci", "xhci_pci_renesas", "ehci_pci", "ohci_pci", "xhci_plat_hcd"),
    emulator=Emulator(
        programs=("qemu-system-aarch64", "/usr/libexec/qemu-kvm"),
        packages="qemu-system-arm (on Fedora: qemu-system-aarch64-core, on RHEL: qemu-kvm, on "
                 "SUSE: qemu-arm)",
        board="virt",
        # "max" signs pointers, which takes most of the time of an emulated kernel.
        cpu="cortex-a72",
        parameters=("earlycon", "console=ttyAMA0"),
    ),
    # Five levels of page tables, or four with 16K pages, of which not all may be in use;
    # makedumpfile has them since its commit b7587f1e8f45.
    unreadable=(
        frozenset({"CONFIG_ARM64_4K_PAGES=y", "CONFIG_ARM64_VA_BITS=52"}),
        frozenset({"CONFIG_ARM64_16K_PAGES=y", "CONFIG_ARM64_VA_BITS=52"}),
    ),
)  # fmt: skip

ARCHITECTURES = (X86_64, AARCH64)


def is_unreadable(kernel_config: str) -> bool:
    """Whether makedumpfile up to 1.7.9 cannot read the memory of a kernel with that .config."""
    lines = frozenset(kernel_config.splitlines())
    return any(options <= lines for each in ARCHITECTURES for options in each.unreadable)


# pyelftools' names of e_machine: x86 ud2, arm64 udf #0.
MACHINES: Mapping[str, Machine] = {
    "EM_X86_64": Machine(62, b"\x0f\x0b"),
    "EM_AARCH64": Machine(183, b"\x00\x00\x00\x00"),
}
