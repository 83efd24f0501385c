# SPDX-License-Identifier: GPL-2.0-or-later
"""The CPU time that src/crash takes to write a dump, without QEMU, which distorts SHA and AES.

The stick is in memory, and makedumpfile is cat: what is left is the crash side's own work, and that
of gpg. The real time on a stick is the larger one of this and the time of the stick.

busybox and gpg are those of the guests.
"""

import os
import resource
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests import fakehost, keyring
from tests.bench.report import Measured
from tests.crash.world import Crash
from tests.vmtest.rootfs import Root
from tinykdump import keys as keys_of_tinykdump

SIZE = 160 << 20  # bytes, the dump of a guest with 1 GiB
RUNS = 3

# The path of the key is the only one in src/crash that is not a variable.
WRAPPER = """
gpg() {{
    for word; do
        shift; [ "$word" != /etc/tinykdump.key ] || word={key}; set -- "$@" "$word"
    done
    env -i PATH="$PATH" gpg "$@"
}}
"""
OF_KEY = WRAPPER + "KEY_TIME={valid_at}\n"
OCB = "--force-ocb"


def cpu_seconds(action: Callable[[], object]) -> float:
    """User and system seconds of the programs that it runs."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    action()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def save(crash: Crash, data: Path, settings: str) -> None:
    """Write ``data`` as src/crash writes the memory."""
    shutil.rmtree(crash.dump)
    crash.dump.mkdir()
    script = f"{settings}\nread_memory() {{ cat {data}; }}; save vmcore.flat read_memory"
    status, log = crash.run(script)
    assert status == 0, log
    assert sum(path.stat().st_size for path in crash.dump.glob("vmcore.flat*")) >= SIZE


def program(argv: Sequence[str | Path], data: Path) -> None:
    """Run a program whose standard input is ``data``."""
    with data.open("rb") as handle:
        subprocess.run(argv, stdin=handle, stdout=subprocess.DEVNULL, check=True)


def put_gpg(root: Root, file: Path) -> None:
    """Write a program that runs the gpg of the guests, with its libraries."""
    loader = next(root.tree.glob("usr/lib*/ld-linux-*"))
    libraries = next(root.tree.glob("usr/lib/*-linux-gnu"))
    words = shlex.join(map(str, (loader, "--library-path", libraries, root.tree / "usr/bin/gpg")))
    file.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    file.chmod(0o755)


def measure(root: Root) -> Iterator[Measured]:
    """Some runs of each, one after the other."""
    os.environ[fakehost.BUSYBOX] = str(root.busybox)
    busybox = fakehost.real("busybox")
    with tempfile.TemporaryDirectory(prefix="tk-", dir="/dev/shm") as directory:
        top = Path(directory)
        crash = Crash(top)
        for name in ("tmp", "sys", "dev", "stick/dump.partial", "bin"):
            (top / name).mkdir(parents=True, mode=0o700)
        subprocess.run([busybox, "--install", "-s", top / "bin"], check=True)
        put_gpg(root, top / "bin/gpg")
        data = top / "data"
        with Path("/dev/urandom").open("rb") as noise:
            data.write_bytes(noise.read(SIZE))
        keys = keyring.make(top / "keys")
        key = top / "key"
        key.write_bytes(keys.public("good@example.org"))
        encrypting = OF_KEY.format(
            key=key, valid_at=keys_of_tinykdump.last_change(key.read_bytes())
        )
        gpg = [str(top / "bin/gpg"), "--homedir", str(keys.home), "--batch", "--quiet"]
        encrypt = [*gpg, "--compress-algo", "none", "--trust-model", "always",
                   "--recipient", "good@example.org", "--encrypt"]  # fmt: skip
        work: dict[str, Callable[[], None]] = {
            "dd alone": lambda: program(
                [busybox, "dd", "bs=65536", f"of={top}/stick/dd", "conv=fsync"], data
            ),
            "saved, encrypt = no": lambda: save(crash, data, ""),
            "saved, encrypted": lambda: save(crash, data, encrypting),
            "saved, encrypted with OCB": lambda: save(crash, data, f"{encrypting}OCB={OCB}"),
            "gpg --encrypt alone": lambda: program(encrypt, data),
            "gpg --encrypt alone, with OCB": lambda: program([*encrypt, OCB], data),
            "busybox sha256sum alone": lambda: program([busybox, "sha256sum"], data),
            "gpg --print-md alone": lambda: program([*gpg, "--print-md", "sha256"], data),
        }
        runs = [{name: cpu_seconds(action) for name, action in work.items()} for _ in range(RUNS)]
        keys.close()
    for name in work:
        values = tuple(run[name] for run in runs)
        yield Measured(f"writing {SIZE >> 20} MiB", name, "s of CPU", values,
                       "python -m tests.bench writing")  # fmt: skip
