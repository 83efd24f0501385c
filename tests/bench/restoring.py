# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast `tinykdump restore` is, compared with gpg alone on the same file in the same run."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests import keyring
from tests.bench.report import Measured
from tests.dumped import flat
from tinykdump.dump import SUMS
from tinykdump.parts import look
from tinykdump.restore import restore

SIZE = 256 << 20  # bytes of the vmcore
SIZES_MIB = (64, 256, 1024)  # of the curve
RUNS = 5
LOG = b"[    1.000000] a line of the log\n" * 4000


@dataclass(frozen=True)
class Took:
    """How long something took, in seconds: by the clock, and of CPU time with its children."""

    wall: float
    cpu: float


def took(action: Callable[[], object]) -> Took:
    """How long it takes."""
    started, before = time.monotonic(), os.times()
    action()
    return Took(time.monotonic() - started, sum(os.times()[:4]) - sum(before[:4]))


def make(directory: Path, keys: keyring.Keyring, size: int = SIZE) -> None:
    """A dump of a vmcore that cannot be compressed, in pieces as makedumpfile writes them."""
    piece = 1 << 15
    noise = os.urandom(size)
    core = flat([(at, noise[at : at + piece]) for at in range(0, size, piece)])
    sums = []
    for name, content in (("dmesg.txt.gpg.000", LOG), ("vmcore.flat.gpg.000", core)):
        packed = keys.gpg("--trust-model", "always", "-r", "good@example.org", "--encrypt",
                          "--compress-algo", "none", stdin=content)  # fmt: skip
        (directory / name).write_bytes(packed)
        sums.append(f"{hashlib.sha256(packed).hexdigest()}  {name}\n")
    (directory / SUMS).write_text("".join(sums))


def measure(place: str) -> Iterator[Measured]:
    """Some runs of each, one after the other, since the machine may be busy."""
    with tempfile.TemporaryDirectory(prefix="tk-", dir=place) as directory:
        top = Path(directory)
        keys = keyring.make(top / "keys")
        dump = top / "dump"
        dump.mkdir()
        make(dump, keys)
        alone = ["gpg", "--homedir", str(keys.home), "--batch", "--quiet", "--decrypt",
                 str(dump / "vmcore.flat.gpg.000")]  # fmt: skip
        log = [sys.executable, "-m", "tinykdump", "restore", "--dmesg", str(dump),
               "--keys", str(keys.home)]  # fmt: skip
        rows = []
        for number in range(RUNS):
            target = top / f"out{number}"
            rows.append((run(alone), took(partial(restore, look(dump), target, [keys.home])),
                         run(log)))  # fmt: skip
            assert (target / "vmcore").stat().st_size == SIZE
            (target / "vmcore").unlink()
        keys.close()
    where = "in memory" if place == "/dev/shm" else "on disk"  # noqa: S108 - only its name
    group = f"restore of {SIZE >> 20} MiB {where}"
    commands = {"gpg --decrypt alone": alone, "tinykdump restore": ["tinykdump", "restore"],
                "tinykdump restore --dmesg": log}  # fmt: skip
    for (name, words), runs in zip(commands.items(), zip(*rows, strict=True), strict=True):
        command = shlex.join(words)
        yield Measured(group, name, "s", tuple(each.wall for each in runs), command)
        yield Measured(group, f"{name}, CPU", "s of CPU", tuple(each.cpu for each in runs), command)


def curve() -> Iterator[Measured]:
    """How the time of restore grows with the dump, in memory."""
    with tempfile.TemporaryDirectory(prefix="tk-", dir="/dev/shm") as directory:
        top = Path(directory)
        keys = keyring.make(top / "keys")
        for size in SIZES_MIB:
            dump, target = top / "dump", top / "out"
            dump.mkdir()
            make(dump, keys, size << 20)
            runs = []
            for _ in range(2):
                runs.append(took(partial(restore, look(dump), target, [keys.home])))
                shutil.rmtree(target)
            shutil.rmtree(dump)
            for unit, values in (("s", [each.wall for each in runs]),
                                 ("s of CPU", [each.cpu for each in runs])):  # fmt: skip
                yield Measured(f"restore by size of the dump, {unit}", f"{size} MiB", unit,
                               tuple(values), "tinykdump restore", note="in memory")  # fmt: skip
        keys.close()


def run(argv: list[str]) -> Took:
    """How long a program takes."""
    return took(partial(subprocess.run, argv, check=True, stdout=subprocess.DEVNULL))
