# SPDX-License-Identifier: GPL-2.0-or-later
"""The grammar of the command line: commands, arguments and options, with their help."""

import argparse
from pathlib import Path

from tinykdump import __version__
from tinykdump.config import FILE
from tinykdump.dump import LATEST
from tinykdump.filesystems import MADE


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    top = argparse.ArgumentParser(
        prog="tinykdump",
        description="Save encrypted crash dumps to a USB stick. See tinykdump(8).",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"tinykdump {__version__}")
    top.add_argument("-c", "--config", "--c", metavar="FILE", default="",
                     help=f"read FILE instead of {FILE}")  # fmt: skip
    top.add_argument("-b", "--build", action="store_true", help="build the crash image")
    top.add_argument("-m", "--module", metavar="M,M", help="add these modules to the image")
    top.add_argument("-l", "--load", action="store_true",
                     help="load the crash image; build it first if necessary")  # fmt: skip
    top.add_argument("-s", "--script", metavar="FILE",
                     help="run FILE in the crash kernel before it saves the memory")  # fmt: skip
    top.add_argument("-k", "--key", metavar="KEY",
                     help="encrypt to KEY: a path with a / or a key in root's keyring")  # fmt: skip
    top.add_argument("--kernel", metavar="KVER",
                     help="use this installed kernel instead of the running one")  # fmt: skip
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    prepared = commands.add_parser("prepare", help="format a USB disk as a stick for dumps")
    prepared.add_argument("device", type=Path, nargs="?",
                          help="the disk, /dev/sdX; if missing, list those behind USB")  # fmt: skip
    prepared.add_argument("--filesystem", choices=MADE, metavar="TYPE", default="",
                          help=f"make this file system: {', '.join(MADE)}")  # fmt: skip
    prepared.add_argument("--keep-data", action="store_true",
                          help="only change the label of the file system")  # fmt: skip
    prepared.add_argument("--yes", action="store_true", help="do not ask")
    looked = commands.add_parser("status", help="show whether this machine is armed")
    form = looked.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON, for programs")
    form.add_argument("--check", action="store_true",
                      help="print one line, for monitoring; exit with 0, 1, 2 or 3")  # fmt: skip
    commands.add_parser("estimate", help="show what the crash kernel and a dump need")
    listed = commands.add_parser("list", help="list the dumps on sticks")
    listed.add_argument("--mount", action="store_true",
                        help="also read sticks that are not mounted")  # fmt: skip
    listed.add_argument("--json", action="store_true", help="print JSON, for programs")
    key = commands.add_parser("key", help="show, export or back up the key of the dumps")
    key.add_argument("action", choices=("show", "export", "backup"))
    key.add_argument("file", type=Path, nargs="?",
                     help="where backup writes the secret key")  # fmt: skip
    commands.add_parser("log", help="print the log of the last crash kernel, from pstore")
    commands.add_parser("notice", help="tell at the next login that this machine crashed")
    tested = commands.add_parser("test", help="crash this machine to see that a dump comes out")
    tested.add_argument("--yes", action="store_true", help="do not ask")
    tested.add_argument("--rehearse", action="store_true",
                        help="crash a guest in QEMU instead of this machine")  # fmt: skip
    commands.add_parser("unload", help="unload tinykdump's crash kernel")
    restored = commands.add_parser("restore", help="check and decrypt a dump, and write a vmcore")
    restored.add_argument("dump", nargs="?", default=LATEST,
                          help="a directory tinykdump/MACHINE/TIME on the stick; a device or a "
                               "mount point for the newest complete dump there; latest (the "
                               "default) for that of all mounted sticks")  # fmt: skip
    restored.add_argument("-o", "--output", type=Path, metavar="DIR",
                          help="write to DIR instead of /var/crash/HOST-TIME")  # fmt: skip
    restored.add_argument("--dmesg", action="store_true",
                          help="only print the log of the crashed kernel")  # fmt: skip
    restored.add_argument("--keys", type=Path, metavar="DIR",
                          help="use the secret key in this GnuPG home directory")  # fmt: skip
    restored.add_argument("--plain", action="store_true",
                          help="restore also unencrypted files, which can be forged")  # fmt: skip
    reported = commands.add_parser("report", help="show what is in a vmcore, with drgn")
    reported.add_argument("vmcore", type=Path, help="a vmcore that restore has written")
    reported.add_argument("--html", type=Path, metavar="FILE",
                          help="write a page with plots to FILE instead")  # fmt: skip
    reported.add_argument("--symbols", type=Path, metavar="FILE", action="append", default=[],
                          help="use the symbols in FILE, a vmlinux or a module")  # fmt: skip
    commands.add_parser("harvest", help="restore this machine's new dumps to /var/crash")
    return top
