# SPDX-License-Identifier: GPL-2.0-or-later
"""The crash kernel's command line. Text in, text out; no I/O here."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from tinykdump.architecture import Architecture

# Parameters of modules that keep USB or disks away, which is right for the normal system alone:
# nothing but the target is looked at in the crash kernel, and there is nobody to allow a device.
NOT_KEPT = ("scsi_mod.scan", "usbcore.authorized_default", "usbcore.nousb")

# With memory encryption of the host (SME) on, the kernel keeps 64 MiB for bounce buffers. That is
# for devices that cannot reach its addresses: of ours old USB controllers, which need little.
BOUNCE_BUFFERS = 8 << 20
_SLOT = 2048  # bytes; swiotlb= has the number of these (kernel-parameters.txt)

_WORD = re.compile(r'(?:"[^"]*"|[^\s"])+')  # values may be quoted, as in next_arg()


def crash_cmdline(
    architecture: Architecture, running: str, append: str, pstore: Iterable[str]
) -> str:
    """What the crash kernel is started with.

    What is taken over from the running kernel is how to reach its console and how to live with
    its hardware. Everything else (root=, quiet, hugepages=, crashkernel=, ...) was meant for a
    whole system, and costs memory or does harm in this one.

    ``running`` is the running kernel's command line as in /proc/cmdline, ``append`` what the
    configuration adds, ``pstore`` what keeps the crash kernel's log; later words win in the
    kernel.
    """
    kept = [
        word
        for word in _WORD.findall(running.split(" -- ", 1)[0])
        if _is_kept(word, architecture.kept)
    ]
    swiotlb = [f"swiotlb={BOUNCE_BUFFERS // _SLOT}"] if encrypts_memory(" ".join(kept)) else []
    return " ".join([*kept, *architecture.added, *swiotlb, *pstore, *_WORD.findall(append)])


def encrypts_memory(cmdline: str) -> bool:
    """Whether a kernel is told to encrypt its memory; a crash kernel then has to, as well.

    It reads the crashed kernel's memory as it reads its own.
    """
    return values(cmdline, "mem_encrypt")[-1:] == ("on",)


def values(cmdline: str, name: str) -> tuple[str, ...]:
    """What a command line has for a parameter, in its order; quotes are taken away."""
    words = [word.replace('"', "").partition("=") for word in _WORD.findall(cmdline)]
    return tuple(value for key, equals, value in words if equals and _name(key) == _name(name))


def module_parameters(cmdline: str, module: str, options: str = "") -> str:
    """The parameters that a module is loaded with, as insmod takes them; later ones win.

    First ``options``, those of modprobe.d, less what would keep the stick away. Then those of the
    crash kernel's command line: a kernel hands them to what is built in only. For a module it is
    modprobe that does it, and the crash kernel has none.
    """
    prefix = f"{module}."
    found = [word for word in _WORD.findall(options) if prefix + _name(word) not in NOT_KEPT]
    for word in _WORD.findall(cmdline):
        quote = word[: word.startswith('"')]  # a quote may be around the name, too
        if _name(word).startswith(prefix):
            found.append(quote + word[len(quote) + len(prefix) :])
    return " ".join(found)


def _is_kept(word: str, kept: Iterable[str]) -> bool:
    name = _name(word)
    listed = any(fnmatchcase(name, pattern.replace("-", "_")) for pattern in kept)
    return listed and name not in NOT_KEPT


def _name(word: str) -> str:
    return word.strip('"').split("=", 1)[0].replace("-", "_")
