# SPDX-License-Identifier: GPL-2.0-or-later
"""The crash kernel's command line. Pure: text in, text out."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from tinykdump.architecture import Architecture

# Module parameters that disable USB devices or disks. They suit only the system kernel: the crash
# kernel mounts nothing but the dump target, and nobody is there to authorize a device.
NOT_KEPT = ("scsi_mod.scan", "usbcore.authorized_default", "usbcore.nousb")

# What the crash kernel gets unless the running kernel's parameters or the configuration say
# otherwise. usb-storage waits for a second before it looks at a new device. The stick has had its
# power since before the crash; one that needs the time is looked at again (src/crash/stick.sh).
DEFAULTS = ("usb_storage.delay_use=0",)

# With the host's memory encryption (SME) on, the kernel allocates 64 MiB of bounce buffers for
# devices that cannot address its memory. Here only old USB controllers use them, and need little.
BOUNCE_BUFFERS = 8 << 20
_SLOT = 2048  # bytes; swiotlb= counts in these (kernel-parameters.txt)

_MEMORY = re.compile(r"^ *[0-9a-f]{1,16}-([0-9a-f]{1,16}) : System RAM$", re.MULTILINE)
_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+')  # values may be quoted, as in next_arg()


def crash_cmdline(
    architecture: Architecture, running: str, append: str, more: Iterable[str]
) -> str:
    """The command line that the crash kernel starts with.

    From the running kernel it takes the parameters for consoles and for the machine's hardware.
    All others (root=, quiet, hugepages=, crashkernel=, ...) are meant for a complete system;
    in the crash kernel they cost memory or do harm.

    ``running`` is the running kernel's command line as in /proc/cmdline, ``append`` what the
    configuration adds, ``more`` what pstore, the kernel's own drivers and this machine's memory
    ask for. The kernel uses the last value of a parameter, but all of initcall_blacklist=.
    """
    kept = [
        word
        for word in _WORD.findall(running.split(" -- ", 1)[0])
        if _is_kept(word, architecture.kept)
    ]
    swiotlb = [f"swiotlb={BOUNCE_BUFFERS // _SLOT}"] if encrypts_memory(" ".join(kept)) else []
    ours = (*architecture.added, *swiotlb, *more)
    return " ".join([*DEFAULTS, *kept, *ours, *_WORD.findall(append)])


def fewer_levels(architecture: Architecture, iomem: str) -> tuple[str, ...]:
    """The parameter for page tables of fewer levels, if they reach all memory of this machine.

    ``iomem`` is /proc/iomem, where all memory ends at 0 for those who may not know.
    """
    if architecture.fewer_levels is None:
        return ()
    parameter, limit = architecture.fewer_levels
    top = max((int(end, 16) for end in _MEMORY.findall(iomem)), default=0)
    return (parameter,) if 0 < top < limit else ()


def encrypts_memory(cmdline: str) -> bool:
    """Whether a command line turns memory encryption on; the crash kernel needs the same setting.

    It maps the crashed kernel's memory in the same way as its own.
    """
    return values(cmdline, "mem_encrypt")[-1:] == ("on",)


def values(cmdline: str, name: str) -> tuple[str, ...]:
    """The values of a parameter on a command line, in order, without quotes."""
    words = [word.replace('"', "").partition("=") for word in _WORD.findall(cmdline)]
    return tuple(value for key, equals, value in words if equals and _name(key) == _name(name))


def module_parameters(cmdline: str, module: str, options: str = "") -> str:
    """The parameters that a module is loaded with, as insmod takes them; later ones win.

    First come ``options``, those of modprobe.d, except those that would disable the stick. Then
    come those of the crash kernel's command line: the kernel passes them only to built-in code.
    For modules, modprobe does that, and the crash kernel has no modprobe.
    """
    prefix = f"{module}."
    found = [word for word in _WORD.findall(options) if prefix + _name(word) not in NOT_KEPT]
    for word in _WORD.findall(cmdline):
        quote = word[: word.startswith('"')]  # quotes may enclose the name, too
        if _name(word).startswith(prefix):
            found.append(quote + word[len(quote) + len(prefix) :])
    return " ".join(found)


def _is_kept(word: str, kept: Iterable[str]) -> bool:
    name = _name(word)
    listed = any(fnmatchcase(name, pattern.replace("-", "_")) for pattern in kept)
    return listed and name not in NOT_KEPT


def _name(word: str) -> str:
    return word.strip('"').split("=", 1)[0].replace("-", "_")
