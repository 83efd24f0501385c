# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad input, end to end: the message is one line that says what is wrong and what to do, the exit
status tells the kind of error, and earlier builds stay unchanged."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests import elfwriter
from tests.fakehost import KVER, SOURCE, STATE, FakeHost
from tests.keyring import Keyring
from tests.unit.test_manifest import MANIFEST
from tinykdump import cli, kernel_install

TOP = f"/lib/modules/{KVER}"
CONFIG = "/etc/default/tinykdump"
BASE = "[dump]\nkey = /root/key.asc\n"


@pytest.fixture
def built(fake: FakeHost, keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A machine with a key and an image."""
    fake.write("/root/key.asc", keys.public("good@example.org"))
    fake.write(CONFIG, BASE)
    fake.write(f"{STATE}/initramfs.img", b"old image", 0o600)
    fake.write(f"{STATE}/manifest.json", MANIFEST.to_json(), 0o600)
    for name in ("expired", "revoked", "sign-only"):
        fake.write(f"/root/{name}.asc", keys.public(f"{name}@example.org"))
    fake.write("/root/two.asc", keys.public("good@example.org", "other@example.org"))
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    return fake


Break = Callable[[FakeHost], object]


def nothing(_fake: FakeHost) -> None:
    pass


def configured(text: str) -> Break:
    return lambda fake: fake.write(CONFIG, text)


def cut(path: str) -> Break:
    def shorten(fake: FakeHost) -> None:
        fake.write(path, fake.path(path).read_bytes()[:-30])

    return shorten


def replaced(path: str, content: bytes | str, mode: int = 0o644) -> Break:
    return lambda fake: fake.write(path, content, mode)


def removed(path: str) -> Break:
    return lambda fake: fake.remove(path)


DYNAMIC = elfwriter.program(interpreter="/lib64/ld.so", needed=["libc.so.6"])
SCRIPT = f"{BASE}script = /root/x\n"

# Name, what breaks it, options, exit status, the start of the error, and the start of the hint.
CASES: list[tuple[str, Break, list[str], int, str, str]] = [
    ("unknown key", configured("[dump]\nwiat = 3\n"), [], 2,
     f"{CONFIG}: [dump] wiat: no such key", "[dump] has target, "),
    ("bad value", configured("[dump]\nwait = soon\n"), [], 2,
     f"{CONFIG}: [dump] wait: 'soon' is not valid", "write a whole number from 1 to 3600"),
    ("not INI", configured("wait = 3\n"), [], 2, f"{CONFIG}: File contains no section", "write ["),
    ("no such configuration", nothing, ["-c", "/nonexistent"], 2,
     "/nonexistent: No such file", "name a configuration"),
    ("bad option", nothing, ["-m", "a/b"], 2, "option for modules: 'a/b'", "'a/b' is not a module"),
    ("missing key", removed("/root/key.asc"), [], 1, "/root/key.asc: No such file", "check that"),
    ("unknown key name", nothing, ["-k", "nobody@nowhere"], 1, "key nobody@nowhere is", "import"),
    ("expired key", nothing, ["-k", "/root/expired.asc"], 1,
     "key /root/expired.asc expired 2020-01-0", "extend it"),
    ("revoked key", nothing, ["-k", "/root/revoked.asc"], 1,
     "key /root/revoked.asc is revoked", "name another key"),
    ("sign-only key", nothing, ["-k", "/root/sign-only.asc"], 1,
     "key /root/sign-only.asc cannot encrypt", "name a key that"),
    ("two keys", nothing, ["-k", "/root/two.asc"], 1, "key /root/two.asc contains 2", "export"),
    ("no modules", removed(TOP), [], 1, f"kernel {KVER} has no directory {TOP}", "install"),
    ("other kernel", nothing, ["--kernel", "9.9"], 1, "kernel 9.9 has no directory", "install"),
    ("no kernel version", nothing, ["--kernel", "../x"], 1, "'../x' is not a kernel", "name a"),
    ("no kernel image", removed(f"{TOP}/vmlinuz"), [], 1, f"no kernel image of {KVER}", "install"),
    ("module not found", nothing, ["-m", "nosuch"], 1,
     f"module nosuch is not in {TOP}", "check the name"),
    ("module needed and not there", removed(f"{TOP}/kernel/drivers/scsi/sd_mod.ko"), [], 1,
     f"module sd_mod is not in {TOP}", "check the name"),
    # src/crash/lib.sh mounts FAT with it.
    ("character set not there", removed(f"{TOP}/kernel/fs/nls/nls_ascii.ko"), [], 1,
     f"module nls_ascii is not in {TOP}", "check the name"),
    ("module for another kernel",
     lambda fake: fake.module("kernel/fs/fat/fat.ko", kver="5.0"), [], 1,
     f"{TOP}/kernel/fs/fat/fat.ko was built for kernel 5.0, not {KVER}", "rebuild"),
    ("truncated module", cut(f"{TOP}/kernel/fs/fat/fat.ko"), [], 1,
     f"{TOP}/kernel/fs/fat/fat.ko is not a complete kernel module", "reinstall"),
    ("truncated module, xz", cut(f"{TOP}/kernel/drivers/usb/host/xhci-pci.ko.xz"), [], 1,
     f"{TOP}/kernel/drivers/usb/host/xhci-pci.ko.xz cannot be unpacked", "reinstall"),
    ("truncated module, zstd", cut(f"{TOP}/kernel/drivers/usb/host/xhci-hcd.ko.zst"), [], 1,
     f"{TOP}/kernel/drivers/usb/host/xhci-hcd.ko.zst cannot be unpacked", "reinstall"),
    ("no busybox", removed("/usr/bin/busybox"), [], 1, "busybox is not installed", "install"),
    ("dynamic busybox", replaced("/usr/bin/busybox", DYNAMIC, 0o755), [], 1,
     "/usr/bin/busybox is dynamically linked",
     "install busybox (on Debian and SUSE: busybox-static)"),
    ("no makedumpfile", removed("/usr/bin/makedumpfile"), [], 1,
     "makedumpfile is not installed", "install makedumpfile"),
    ("no gpg", removed("/usr/bin/gpg"), [], 1, "gpg is not installed", "install gnupg2"),
    ("missing script", configured(SCRIPT), [], 1, "/root/x: No such file", "check that"),
    ("script not executable", replaced("/root/x", "#!/bin/sh\n"), ["-s", "/root/x"], 1,
     "script /root/x is not executable", "chmod +x /root/x"),
    ("script without interpreter", replaced("/root/x", "#!/bin/none\n", 0o755),
     ["-s", "/root/x"], 1, "interpreter /bin/none of script /root/x is not installed", "install"),
]  # fmt: skip


# The keyring that is searched for a key's name is root's.
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, id=case[0], marks=[pytest.mark.checkout] * (case[0] == "unknown key name")
        )
        for case in CASES
    ],
)
def test_command(
    built: FakeHost,
    capfd: pytest.CaptureFixture[str],
    case: tuple[str, Break, list[str], int, str, str],
) -> None:
    _, damage, words, status, names, hint = case
    damage(built)
    before = built.snapshot(), built.snapshot("/sys/kernel")
    assert cli.main(["-b", *words]) == status
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"tinykdump: {names}")
    assert f" ({hint}" in err
    assert (built.snapshot(), built.snapshot("/sys/kernel")) == before
    assert [path.name for path in built.path("/run/tinykdump").glob("stage*")] == []


@pytest.mark.parametrize(
    ("damage", "names"),
    [(case[1], case[4]) for case in CASES if not case[2]],
    ids=[case[0] for case in CASES if not case[2]],
)
def test_plugin(
    built: FakeHost, capfd: pytest.CaptureFixture[str], damage: Break, names: str
) -> None:
    damage(built)
    before = built.snapshot()
    assert kernel_install.main(["add", KVER, "/boot/x", "/boot/none"]) == 0
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"tinykdump: add {KVER}: {names}")
    assert built.snapshot() == before


@pytest.mark.parametrize("size", ["0", str(8 << 20)])
def test_without_a_reservation_the_hint_is_crashkernel(
    built: FakeHost, capfd: pytest.CaptureFixture[str], size: str
) -> None:
    built.write("/sys/kernel/kexec_crash_size", size)
    before = built.snapshot("/sys/kernel")
    assert cli.main(["-l"]) == 1
    _, err = capfd.readouterr()
    have = "no memory is reserved" if size == "0" else "8 MiB are reserved"
    assert err.startswith(f"tinykdump: {have} for a crash kernel, ")
    assert "(add crashkernel=" in err
    assert err.count("\n") == 1
    assert built.snapshot("/sys/kernel") == before


def test_another_programs_crash_kernel(built: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    built.write("/sys/kernel/kexec_crash_size", str(256 << 20))
    built.write("/sys/kernel/kexec_crash_loaded", "1")
    assert cli.main(["-l"]) == 1
    assert "another program's crash kernel is loaded (unload it" in capfd.readouterr().err
    assert cli.main(["unload"]) == 1
    assert "not tinykdump's (unload it with the program that loaded it)" in capfd.readouterr().err


@pytest.mark.checkout
@pytest.mark.parametrize("full", ["/run/tinykdump", STATE])
def test_an_error_on_a_full_disk_names_the_file(
    fake: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    """A real file system with room for only a part of the staged tree, or of the image."""
    fake.write(CONFIG, "[dump]\nencrypt = no\n")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    place = fake.path(full)
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", place], check=True)
    try:
        assert cli.main(["-b"]) == 1
        assert [path.name for path in place.iterdir() if path.name != "lock"] == []
    finally:
        subprocess.run(["umount", place], check=True)
    err = capfd.readouterr().err
    assert err.startswith(f"tinykdump: {place}")
    assert err.endswith(": No space left on device (free space on that file system)\n")
    assert err.count("\n") == 1


def writer(pipe: Path, reader: subprocess.Popen[str]) -> int:
    """Open a named pipe for writing, once ``reader`` has opened it."""
    while reader.poll() is None:
        with suppress(OSError):  # ENXIO: not opened yet
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.05)
    raise AssertionError(f"it ended before: {reader.communicate()[1]}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_build_prints_one_line(fake: FakeHost, number: signal.Signals) -> None:
    """In the middle of a build, which waits for the content of a program."""
    fake.remove("/usr/bin/makedumpfile")
    os.mkfifo(fake.path("/usr/bin/makedumpfile"))
    fake.write(CONFIG, "[dump]\nencrypt = no\n")
    before = fake.snapshot()
    environment = {**os.environ, "PYTHONPATH": SOURCE, "TINYKDUMP_ROOT": str(fake.root)}
    # If the tests run in the background, they and their children may ignore SIGINT.
    argv = ["env", "--default-signal", sys.executable, "-m", "tinykdump", "-b"]
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as running:
        pipe = writer(fake.path("/usr/bin/makedumpfile"), running)
        # Python handles a signal that comes just before read(2) only after it.
        while running.poll() is None:
            running.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                running.wait(5)
        os.close(pipe)
        _, err = running.communicate()
    assert running.returncode == 130
    assert err.startswith("tinykdump: interrupted (")
    assert err.count("\n") == 1
    assert fake.snapshot() == before


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["list", "--json"], ["status", "--check"]])
def test_a_reader_that_has_enough(fake: FakeHost, words: list[str], unbuffered: str) -> None:
    """Such as head(1). No message, and the end that a shell expects."""
    environment = {**os.environ, "PYTHONPATH": SOURCE, "TINYKDUMP_ROOT": str(fake.root),
                   "PYTHONUNBUFFERED": unbuffered}  # fmt: skip
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([sys.executable, "-m", "tinykdump", *words], stdout=writing,
                              stderr=subprocess.PIPE, env=environment, check=False)  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize(
    "words", [["--frobnicate"], ["-k"], ["restore", "a", "b"], ["nonsense"], ["--bu"]]
)
def test_usage(capfd: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert "usage: tinykdump" in capfd.readouterr().err


@pytest.mark.checkout
def test_nothing_to_do(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith("tinykdump: nothing to do")
