# SPDX-License-Identifier: GPL-2.0-or-later
"""The functions of src/crash, run by the real busybox on directory trees."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests import fakehost
from tinykdump.dump import SUMS, of_machine, parse_sums
from tinykdump.image.programs import APPLETS, LIBRARY

CRASH_SIDE = Path(__file__).parents[2] / "src/crash"
LIB = "\n".join(f". {CRASH_SIDE / name}" for name in LIBRARY)
MACHINE = "0123456789ab"
BLOCK = 65536  # bytes, the unit of CHUNK
MIB = 1 << 20

# Creates the directory of a dump, at a known time.
OPEN = 'date() { echo 20260102T030405Z; }; open_dump_directory; say "DUMP ${DUMP#"$STICK"/}"'
TIME = "20260102T030405Z"

# The values of /etc/tinykdump.conf, and functions that replace what must not happen on this
# machine: the shell prefers functions to applets and programs. sleep skips the ten seconds of
# show_progress, which would outlive its stage, and makes the supervisor look more often. busybox
# must not install its links.
PREAMBLE = """\
exec 9>&1
KMSG=/proc/self/fd/9 SYS={top}/sys DEV={top}/dev STICK={top}/stick TMP={top}/tmp
SYSRQ={top}/sysrq
MACHINE=0123456789ab ROOT_UUID= CLOCK_ZONE= TARGET_TAG=LABEL TARGET_VALUE=TINYKDUMP FILESYSTEMS=vfat
WAIT=1 KEEP=0 COMPRESSION=-l LEVEL=31 KEY_TIME= OCB= SCRIPT= SCRIPT_WAIT=1 STALL=2
FINAL_ACTION=reboot
{lib}
reboot() {{ say "ACTION reboot $*"; }}
poweroff() {{ say "ACTION poweroff $*"; }}
halt() {{ say "ACTION halt $*"; }}
umount() {{ say "UMOUNT $*"; }}
sync() {{ :; }}
sleep() {{ case $1 in 10) false ;; 1) usleep 100000 ;; *) command sleep "$1" ;; esac; }}
busybox() {{ :; }}
DUMP={top}/stick/dump.partial MINE={top}/stick/tinykdump/0123456789ab
"""


@dataclass(frozen=True)
class Crash:
    """The file systems of a crash kernel, below a directory."""

    top: Path

    @property
    def stick(self) -> Path:
        return self.top / "stick"

    @property
    def dump(self) -> Path:
        return self.stick / "dump.partial"

    @property
    def dumps(self) -> Path:
        return of_machine(self.stick, MACHINE)

    def run(self, script: str, stdin: bytes = b"", *, bare: bool = False) -> tuple[int, str]:
        """Run a script in busybox's shell; returns its status and the kernel's log.

        The shell is PID 1 of a namespace, because it kills every process that it sees. ``bare``:
        it has the programs of an image only. dash runs it then, since some busyboxes find all of
        their applets without a path.
        """
        path, shell = f"{self.top}/bin:/usr/bin:/bin", [str(fakehost.real("busybox")), "sh"]
        if bare:
            path, shell = str(self._programs()), [str(fakehost.real("dash"))]
        text = PREAMBLE.format(top=self.top, lib=LIB) + script
        done = subprocess.run(
            [fakehost.real("unshare"), "--pid", "--fork", "--mount-proc", *shell, "-c", text],
            input=stdin, capture_output=True, check=False, timeout=60, env={"PATH": path},
        )  # fmt: skip
        return done.returncode, done.stdout.decode()

    def _programs(self) -> Path:
        directory = self.top / "programs"
        directory.mkdir()
        for name in APPLETS:
            (directory / name).symlink_to(fakehost.real("busybox"))
        return directory

    def sums(self) -> dict[str, str]:
        """The sums of the dump as `tinykdump restore` reads them: name -> sum."""
        found = parse_sums((self.dump / SUMS).read_text())
        return {name: digest for name, (digest,) in found.items()}


def old_dump(crash: Crash, name: str, size: int) -> Path:
    """A dump with a log and ``size`` bytes of memory."""
    path = crash.dumps / name
    path.mkdir(parents=True)
    for file, content in {"SHA256SUMS": b"", "dmesg.txt.000": b"log"}.items():
        (path / file).write_bytes(content)
    (path / "vmcore.flat.000").write_bytes(bytes(size))
    return path


def save_dump(crash: Crash, size: int, keep: int = 2) -> tuple[int, str]:
    return crash.run(
        f"read_log() {{ echo log; }}; read_memory() {{ head -c {size} /dev/zero; }}; KEEP={keep};"
        f"CHUNK=16; {OPEN}; save_log; save_memory; publish; remove_old_dumps"
    )
