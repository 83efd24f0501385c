# SPDX-License-Identifier: GPL-2.0-or-later
"""The parsers of what others wrote, each as a function of bytes, and inputs to begin with.

A target raises nothing: errors that the parser documents are expected, all others are bugs.
"""

import re
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests import elfwriter
from tinykdump import config, crashlog, dmesg, dump, kernelimage, openpgp, output, vmcoreinfo
from tinykdump.errors import TinykdumpError
from tinykdump.image import elf, modinfo

SOURCE = Path(__file__).parents[2] / "src"

# Between the records of pstore in one input; the byte after it chooses the name and the times.
RECORD = b"\xff\xfe\xfd"
NAMES = ("kexec-console-erst-7", "dmesg-erst-1", "console-ramoops-0", "unknown-3-erst",
         "dmesg-efi_pstore-1.enc.z", "kexec-console-efi-2.enc.z")  # fmt: skip
LOG = (
    b"<5>[    3.000000][    T1] tinykdump: [1.00 s] saving the memory\n"
    b"<5>[    4.000000] tinykdump: the dump takes 5 MiB\n"
    b"<5>[    5.000000] tinykdump: [6.00 s] saved as x\n"
)
# makedumpfile's header, a piece, and the end of the flattened format.
FLAT = (
    struct.pack(">16sq", b"makedumpfile", 1).ljust(4096, b"\0")
    + struct.pack(">qq5sqq", 0, 5, b"hello", -1, -1)
)  # fmt: skip
KDUMP = struct.pack("<8s420xi80x32xqQ", b"KDUMP   ", 512, 600, 64).ljust(600, b"\0")
TAGS = [("vermagic", "6.1 SMP"), ("alias", "usb:*"), ("softdep", "pre: a post: b")]


def in_elf(data: bytes) -> None:
    with suppress(TinykdumpError):
        elf.parse(data, "x")
    with suppress(TinykdumpError):
        elf.undefined(data, "x")
    with suppress(TinykdumpError):
        elf.exported(data, ["malloc", "a"], "x")


def in_module(data: bytes) -> None:
    with suppress(TinykdumpError):
        modinfo.parse_module(data, "x")


def in_modinfo(data: bytes) -> None:
    modinfo.parse_modinfo(data)


def in_stream(data: bytes) -> None:
    """The flattened format, as it arrives in pieces of the size that the first byte says."""
    step = 17 * (1 + data[0]) if data else 1
    # A piece may say any offset: the file is sparse, and the kernel limits its size.
    with suppress(TinykdumpError, OSError), tempfile.TemporaryFile(dir="/dev/shm") as file:
        restored = output.InOrder(file)
        for start in range(1, len(data), step):
            restored.write(data[start : start + step])


def in_pstore(data: bytes) -> None:
    boots = crashlog.Boots(100_000.0, 50_000.0)
    records = []
    for piece in filter(None, data.split(RECORD)):
        name = NAMES[piece[0] % len(NAMES)]
        found = crashlog.record(name, piece[1:], piece[0] * 1000.0, collected=bool(piece[0] & 32),
                                boots=boots)  # fmt: skip
        records += [found] if found else []
    log = crashlog.newest(records)
    if log:
        shown = [log.text, log.verdict, log.when, str(log.rate)]
        assert not any("\x1b" in text for text in shown), "a control character is shown"


def in_ini(data: bytes) -> None:
    with suppress(UnicodeDecodeError, TinykdumpError):
        config.resolve([config.parse_file(data.decode(), "x")], {})


def in_kernel(data: bytes) -> None:
    kernelimage.loadable(data, lambda packed: packed)
    kernelimage.version(data)
    with suppress(TinykdumpError):
        kernelimage.init_size(data, "x")


def in_dump(data: bytes) -> None:
    """What else a stick may have: sums, names, a vmcore, a message, and the log."""
    info = vmcoreinfo.find(lambda at, size: data[at : at + size] if at >= 0 <= size else b"")
    if info:
        info.number("SYMBOL(x)")
    text = data.decode(errors="replace")
    for parse in (dump.parse_sums, dump.parse_test, dump.parse_part, dump.time, dmesg.reason,
                  dmesg.kernel):  # fmt: skip
        parse(text)
    openpgp.recipient(data[: openpgp.HEAD])


def packed(data: bytes) -> bytes:
    """As pstore compresses: raw deflate."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def every_key(default: bytes) -> bytes:
    """The default configuration, where comments show the keys, with keys and without comments."""
    return re.sub(rb"(?m)^(#(?![a-z_]+ =).*)?\n|^#", b"", default)


# Name -> target, and inputs to begin with.
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "elf": (in_elf, [elfwriter.program(interpreter="/lib64/ld.so", needed=["libc.so.6"],
                                       runpath="$ORIGIN")]),
    "module": (in_module, [elfwriter.module(TAGS)]),
    "modinfo": (in_modinfo, [elfwriter.modinfo(TAGS)]),
    "stream": (in_stream, [b"\0" + FLAT]),
    "pstore": (in_pstore, [b"\0kexec-console#12ab Part1\n" + LOG + RECORD + b"\1Panic#1 Part1\n" +
                           LOG, b"\4" + packed(b"Panic#1 Part1\n" + LOG)]),
    "ini": (in_ini, [every_key((SOURCE / "default/tinykdump").read_bytes())]),
    "kernel": (in_kernel, [bytes(0x202) + b"HdrS\x0f\2" + bytes(0x100)]),
    "dump": (in_dump, [KDUMP + b"OSRELEASE=6.1\nSYMBOL(x)=1\n", b"Kernel panic - not syncing: x"]),
}  # fmt: skip
