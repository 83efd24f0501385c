# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of the package's scriptlets, on directory trees; tests/rpm runs the scriptlets."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakehost import KVER, SOURCE, STATE, FakeHost, enable_kdump, install_service, make_live
from tinykdump import cli, kernel_install, scriptlets, units
from tinykdump.errors import TinykdumpError

RUNNING = "/run/tinykdump"


@pytest.fixture
def machine(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    fake.write("/etc/default/tinykdump", "[dump]\nencrypt = no\n")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    return fake


def said(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return capfd.readouterr().err.splitlines()


def test_install_in_another_root_changes_nothing(
    machine: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    assert scriptlets.main(["install"]) == 0
    assert said(capfd) == [
        "tinykdump: not the running system: tinykdump.service arms it at its next boot"
    ]
    assert machine.snapshot() == {}


def test_refresh_rebuilds_stale_images(
    machine: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    cli.main(["-b"])
    before = machine.snapshot()
    capfd.readouterr()
    assert scriptlets.main(["refresh"]) == 0
    assert (machine.snapshot(), said(capfd)) == (before, [])

    busybox = machine.path("/usr/bin/busybox").read_bytes()
    machine.write("/usr/bin/busybox", busybox + b"2", 0o755)
    assert scriptlets.main(["refresh"]) == 0
    (line,) = said(capfd)
    assert line.startswith(f"tinykdump: rebuilt the crash image of {KVER}: ")
    assert machine.snapshot() != before


GONE = "/var/lib/tinykdump/images/1.0-gone"
VERBS: dict[str, Callable[[], int]] = {
    "service": lambda: cli.main(["-b"]),
    "add": lambda: kernel_install.main(["add", KVER, "/boot/x", f"/lib/modules/{KVER}/vmlinuz"]),
    "remove": lambda: kernel_install.main(["remove", "2.0", "/boot/x"]),
    "refresh": lambda: scriptlets.main(["refresh"]),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_images_of_kernels_that_are_not_installed_are_removed(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], verb: Callable[[], int]
) -> None:
    """Also if others have left something beside their modules; that of the loaded one stays."""
    cli.main(["-b"])
    before = machine.snapshot()
    loaded = {**json.loads(machine.path(f"{STATE}/manifest.json").read_text()), "kver": "1.1-old"}
    old = machine.write(
        "/var/lib/tinykdump/images/1.1-old/manifest.json", json.dumps(loaded), 0o600
    )
    machine.write(f"{RUNNING}/loaded.json", json.dumps(loaded))
    machine.write("/sys/kernel/kexec_crash_loaded", "1")
    machine.write(f"{GONE}/manifest.json", "{}")
    machine.write(f"{GONE}/linux-1.img", "x")
    machine.write("/lib/modules/1.0-gone/extra/x.ko")
    capfd.readouterr()
    assert verb() == 0
    said_of_it = [line for line in said(capfd) if "1.0-gone" in line]
    assert said_of_it == [
        "tinykdump: removed the crash image of 1.0-gone: that kernel is not installed"
    ]
    assert not machine.path(GONE).exists()
    assert old.exists()
    machine.write("/sys/kernel/kexec_crash_loaded", "0")  # as after a reboot
    assert verb() == 0
    assert machine.snapshot() == before


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda content: content[:-1],
    "a flipped bit": lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_image_is_stale(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    cli.main(["-b"])
    before = machine.snapshot()
    image = machine.image()
    machine.write(f"{STATE}/{image.name}", damage(image.read_bytes()), 0o600)
    capfd.readouterr()
    assert cli.main(["status"]) == 1
    assert f"{STATE}/{image.name} is damaged (rebuild" in capfd.readouterr().out
    assert scriptlets.main(["refresh"]) == 0
    (line,) = said(capfd)
    assert line.startswith(f"tinykdump: rebuilt the crash image of {KVER}: ")
    assert machine.snapshot() == before


def test_an_image_of_an_older_version_is_stale(
    machine: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    cli.main(["-b"])
    before = machine.snapshot()
    old = json.loads(machine.path(f"{STATE}/manifest.json").read_text())
    del old["sha256"]
    machine.write(f"{STATE}/manifest.json", json.dumps(old), 0o600)
    machine.image().rename(machine.path(f"{STATE}/initramfs.img"))
    machine.write(f"{STATE}/loaded.img", b"x")
    capfd.readouterr()
    assert cli.main(["status"]) == 1
    assert f"no image for {KVER} (run tinykdump -l)" in capfd.readouterr().out
    assert scriptlets.main(["refresh"]) == 0
    (line,) = said(capfd)
    assert line.startswith(f"tinykdump: rebuilt the crash image of {KVER}: ")
    assert machine.snapshot() == before


# Builds, and kills itself before rename number N: N.
KILLED = """
import os, signal, sys
from pathlib import Path
from tinykdump import cli
renames, replace = [], Path.replace
def killing(self, target):
    renames.append(target)
    if len(renames) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = killing
cli.main(["-b"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_a_kill_between_renames_publishes_nothing(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], number: int
) -> None:
    """When the old configuration is back, the old image is current."""
    cli.main(["-b"])
    before = machine.snapshot()
    machine.write("/etc/default/tinykdump", "[dump]\nencrypt = no\nwait = 5\n")
    argv = [sys.executable, "-c", KILLED, str(number)]
    environment = {**os.environ, "PYTHONPATH": SOURCE, "TINYKDUMP_ROOT": str(machine.root)}
    assert subprocess.run(argv, env=environment, check=False).returncode == -signal.SIGKILL
    assert len(machine.snapshot()) > len(before)

    machine.write("/etc/default/tinykdump", "[dump]\nencrypt = no\n")
    capfd.readouterr()
    assert scriptlets.main(["refresh"]) == 0
    assert said(capfd) == []
    assert {name: what for name, what in machine.snapshot().items() if name in before} == before
    cli.main(["-b"])
    assert machine.snapshot() == before, "leftovers stay"


def test_one_image_that_fails_does_not_stop_the_others(
    machine: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    cli.main(["-b"])
    machine.write("/var/lib/tinykdump/images/1.0-bare/manifest.json", "{}")
    machine.write("/lib/modules/1.0-bare/modules.builtin")
    machine.write("/usr/bin/makedumpfile", machine.path("/usr/bin/gpg").read_bytes() + b"2", 0o755)
    capfd.readouterr()
    assert scriptlets.main(["refresh"]) == 0
    first, second = said(capfd)
    assert first.startswith(
        "tinykdump: cannot rebuild the image of 1.0-bare, keeping the existing one: "
    )
    assert second.startswith(f"tinykdump: rebuilt the crash image of {KVER}: ")


@pytest.mark.parametrize(("verb", "start"), [("install", "not armed: "), ("refresh", "refresh: ")])
def test_an_error_in_the_configuration_is_one_line(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    verb: str, start: str,
) -> None:  # fmt: skip
    machine.write("/etc/default/tinykdump", "[dump]\nwiat = 3\n")
    make_live(monkeypatch)
    assert scriptlets.main([verb]) == 0
    (line,) = said(capfd)
    assert line.startswith(f"tinykdump: {start}/etc/default/tinykdump: [dump] wiat: no such key")


def test_an_upgrade_that_fails_leaves_the_machine_armed(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does not say otherwise."""
    cli.main(["-b"])
    note = machine.path(f"/var/lib/tinykdump/images/{KVER}/manifest.json").read_text()
    machine.write("/run/tinykdump/loaded.json", note)
    machine.write("/sys/kernel/kexec_crash_loaded", "1\n")
    machine.write("/etc/default/tinykdump", "[dump]\nwiat = 3\n")
    make_live(monkeypatch)
    capfd.readouterr()
    assert scriptlets.main(["install"]) == 0
    (line,) = said(capfd)
    start = f"tinykdump: still armed with the earlier image of {KVER}: /etc/default/tinykdump: "
    assert line.startswith(start)


def test_install_beside_kdump_service_is_one_line(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running kernel's image is built, and nothing else changes."""
    install_service(machine)
    enable_kdump(machine)
    machine.write("/sys/kernel/kexec_crash_size", str(128 << 20))
    monkeypatch.setattr("tinykdump.image.build._try_programs", lambda _: None)
    make_live(monkeypatch)
    assert scriptlets.main(["install"]) == 0
    (line,) = said(capfd)
    assert line.startswith("tinykdump: not armed: kdump.service is enabled and would unload ")
    assert machine.image().exists()
    assert machine.path("/sys/kernel/kexec_crash_size").read_text() == str(128 << 20)


def test_install_with_a_disabled_service_does_not_arm(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a distribution whose presets do not name it."""
    install_service(machine, enabled=False)
    make_live(monkeypatch)
    assert scriptlets.main(["install"]) == 0
    assert said(capfd) == [
        "tinykdump: not armed: tinykdump.service is disabled "
        "(run systemctl enable --now tinykdump.service)"
    ]
    assert machine.snapshot() == {}

    install_service(machine)
    assert scriptlets.main(["install"]) == 0
    assert "disabled" not in "".join(said(capfd))


def test_erase_keeps_the_keys(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    cli.main(["-b"])
    machine.write("/var/lib/tinykdump/keys/pubring.kbx", b"key", 0o600)
    machine.write("/var/lib/tinykdump/images/6.2.0/initramfs.img", b"x")
    machine.write(f"{RUNNING}/loaded.json", "{}")
    capfd.readouterr()
    assert scriptlets.main(["erase"]) == 0
    assert said(capfd) == [
        "tinykdump: the key that decrypts your dumps stays in /var/lib/tinykdump/keys"
    ]
    assert list(machine.snapshot()) == ["keys", "keys/pubring.kbx"]
    # This is a chroot, where /run can be the machine's own.
    assert machine.path(f"{RUNNING}/loaded.json").exists()
    assert machine.path("/etc/default/tinykdump").exists()


@pytest.mark.checkout
def test_erase_says_what_it_cannot_delete(
    machine: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    """It cannot delete a mount point, but deletes the rest."""
    cli.main(["-b"])
    stays = machine.path("/var/lib/tinykdump/images/6.2.0")
    stays.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", stays], check=True)
    capfd.readouterr()
    try:
        assert scriptlets.main(["erase"]) == 0
    finally:
        subprocess.run(["umount", stays], check=True)
    (line,) = said(capfd)
    assert line.startswith(f"tinykdump: erase: {stays}: Device or resource busy (")
    assert list(machine.snapshot()) == ["images", "images/6.2.0"]


def test_erase_with_nothing_to_delete(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    assert scriptlets.main(["erase"]) == 0
    assert said(capfd) == []
    assert not machine.path("/var/lib/tinykdump").exists()


def test_erase_deletes_the_state_even_if_another_programs_crash_kernel_is_loaded(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.main(["-b"])
    machine.write("/sys/kernel/kexec_crash_loaded", "1")
    make_live(monkeypatch)
    capfd.readouterr()
    assert scriptlets.main(["erase"]) == 0
    (line,) = said(capfd)
    assert line.startswith("tinykdump: erase: the loaded crash kernel is not tinykdump's")
    assert not machine.path(STATE).exists()
    assert machine.path("/sys/kernel/kexec_crash_loaded").read_text() == "1"


@pytest.mark.parametrize("fails", [False, True])
def test_erase_first_stops_what_writes_there(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    *, fails: bool,
) -> None:  # fmt: skip
    """A rehearsal would go on for minutes, and leave its result."""
    came: list[list[str]] = []

    def run(argv: list[str], *, hint: str) -> None:
        assert machine.path(RUNNING).exists(), "its directory is gone already"
        came.append(argv)
        if fails:
            raise TinykdumpError("systemctl failed: no", hint)

    monkeypatch.setattr(units, "run", run)
    make_live(monkeypatch)
    cli.main(["-b"])
    machine.write(f"{RUNNING}/lock")
    machine.write("/run/systemd/private")
    capfd.readouterr()
    assert scriptlets.main(["erase"]) == 0
    assert came == [
        ["systemctl", "stop", "tinykdump-rehearse@*.service", "tinykdump-harvest.service"]
    ]
    assert not machine.path(RUNNING).exists()
    hint = "see systemctl status tinykdump-rehearse@*.service"
    assert said(capfd)[:1] == [f"tinykdump: erase: systemctl failed: no ({hint})"] * fails
    assert not machine.path(STATE).exists()


@pytest.mark.usefixtures("machine")
def test_added_kernels_get_an_image(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those whose vmlinuz is among the files; each error is one line."""
    names = (f"/lib/modules/{KVER}/kernel/a.ko", f"/usr/lib/modules/{KVER}/vmlinuz",
             f"/lib/modules/{KVER}/vmlinuz", "/usr/lib/modules/6.9/vmlinuz",
             "/usr/lib/modules/6.8/build/vmlinuz")  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{name}\n" for name in names)))
    monkeypatch.setattr("tinykdump.image.build._try_programs", lambda _: None)
    assert scriptlets.main(["kernels-added"]) == 0
    built, not_loaded, missing = said(capfd)
    assert built.startswith(f"tinykdump: built the crash image of {KVER}: ")
    assert not_loaded == "tinykdump: not loaded: this is not the running system"
    assert missing.startswith("tinykdump: add 6.9: kernel 6.9 has no directory ")


def test_images_of_removed_kernels_go(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    cli.main(["-b"])
    before = machine.snapshot()
    machine.write("/var/lib/tinykdump/images/6.9/manifest.json", "{}")
    capfd.readouterr()
    assert scriptlets.main(["kernels-removed"]) == 0
    assert (machine.snapshot(), said(capfd)) == (before, [])


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["install", "now"]])
def test_invalid_arguments_are_one_line(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert scriptlets.main(words) == 0
    assert len(said(capfd)) == 1


def test_the_module_runs_as_a_program(machine: FakeHost) -> None:
    """As a program."""
    source = str(Path(scriptlets.__file__).parents[1])
    environment = {"PATH": "/usr/bin", "PYTHONPATH": source, "TINYKDUMP_ROOT": str(machine.root)}
    done = subprocess.run([sys.executable, "-m", "tinykdump.scriptlets", "install"],
                          env=environment, capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stderr.startswith("tinykdump: not the running system")
    assert done.stdout == ""
