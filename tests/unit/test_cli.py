# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands without errors, on a directory tree."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import plugged
from tests.fakehost import KVER, NAMES, STATE, FakeHost, enable_kdump, make_live
from tests.keyring import Keyring
from tinykdump import __version__, actions, cli, hardware, load
from tinykdump.config_files import load_config
from tinykdump.host import Host
from tinykdump.image import build
from tinykdump.image.manifest import Manifest, parse
from tinykdump.keys import machine_key as make_key


@pytest.fixture
def machine(fake: FakeHost, keys: Keyring, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    fake.write("/root/key.asc", keys.public("good@example.org"))
    fake.write("/etc/default/tinykdump", "[dump]\nkey = /root/key.asc\n")
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    return fake


def listed(fake: FakeHost) -> list[str]:
    packed = fake.image().read_bytes()
    archive = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout
    return subprocess.run(["cpio", "--list", "--quiet"], input=archive,
                          capture_output=True, check=True).stdout.decode().splitlines()  # fmt: skip


def test_build(machine: FakeHost, keys: Keyring, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--build"]) == 0
    assert capfd.readouterr().out.startswith(f"image of {KVER}: ")
    first = machine.snapshot()
    made = parse(machine.path(f"{STATE}/manifest.json").read_text(), "m")
    assert (made.kver, made.modules) == (KVER, NAMES)
    assert made.key == keys.fingerprint("good@example.org")
    assert made.packed == machine.image().stat().st_size
    assert {"/usr/bin/busybox", "/usr/bin/gpg"} <= {item.source for item in made.inputs}
    assert {"init", "etc/tinykdump.conf", "etc/tinykdump.key", "lib/modules/fat.ko.gz",
            "lib/modules/xhci-hcd.ko.gz", "lib/modules/xhci-pci.ko.xz",
            "dev"} <= set(listed(machine))  # fmt: skip

    assert cli.main(["-b"]) == 0
    assert machine.snapshot() == first, "two builds of the same inputs differ"


@pytest.mark.parametrize(("version", "said"), [("1.7.6", True), ("1.7.7", False)])
def test_a_build_says_that_makedumpfile_is_old(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], version: str, said: bool
) -> None:
    place = machine.path("/usr/bin/makedumpfile")
    # Behind its end: the rest of the program stays as it is, and the first version counts.
    content = place.read_bytes().replace(b"makedumpfile: version", b"makedumpfile: Version")
    place.write_bytes(content + f"makedumpfile: version {version}".encode())
    assert cli.main(["--build"]) == 0
    assert ("note: makedumpfile before 1.7.7" in capfd.readouterr().err) == said


def test_options_override_the_file(machine: FakeHost, keys: Keyring) -> None:
    machine.module("extra/more.ko")
    machine.write("/root/other.asc", keys.public("other@example.org"))
    machine.write("/root/x", "#!/bin/sh\n", 0o755)
    words = ["--module", "more", "-k", "/root/other.asc", "-s", "/root/x", "-b"]
    assert cli.main(words) == 0
    made = parse(machine.path(f"{STATE}/manifest.json").read_text(), "m")
    assert made.modules == ("more", *NAMES)
    assert made.key == keys.fingerprint("other@example.org")
    assert "script" in listed(machine)


def test_a_key_by_a_relative_path(
    machine: FakeHost, keys: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It becomes an absolute path, which is looked up below TINYKDUMP_ROOT."""
    directory = machine.write("/root/here/other.asc", keys.public("other@example.org")).parent
    machine.write(str(directory / "other.asc"), keys.public("other@example.org"))
    monkeypatch.chdir(directory)
    assert cli.main(["-k", "./other.asc", "-b"]) == 0
    made = parse(machine.path(f"{STATE}/manifest.json").read_text(), "m")
    assert made.key == keys.fingerprint("other@example.org")


@pytest.mark.parametrize("words", [["status"], ["estimate"], ["log"], ["unload"], ["-l"]])
def test_commands_that_need_root(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert cli.main(words) == 1
    assert capfd.readouterr().err == ("tinykdump: tinykdump must run as root (use sudo)\n")


@pytest.mark.parametrize("option", ["-c", "--config", "--c"])
def test_a_named_configuration_replaces_the_default_one(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], option: str
) -> None:
    file = machine.write("/mine", "[dump]\nencrypt = no\n")
    assert cli.main([option, str(file), "-b"]) == 0
    assert "NOT ENCRYPTED" in capfd.readouterr().out
    assert not {"etc/tinykdump.key", "bin/gpg"} & set(listed(machine))


def test_without_a_key_the_machines_key_is_made(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.remove("/etc/default/tinykdump")
    assert cli.main(["-b"]) == 1
    assert machine.snapshot() == {}
    make_live(monkeypatch)
    monkeypatch.setattr("tinykdump.image.build._try_programs", lambda _: None)
    assert cli.main(["-b"]) == 0
    first = machine.image().read_bytes()
    assert cli.main(["-b"]) == 0
    assert machine.image().read_bytes() == first


def test_status_changes_nothing(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    cli.main(["-b"])
    capfd.readouterr()
    before = machine.snapshot("/var"), machine.snapshot("/sys")
    assert cli.main(["status", "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert (found["running"], found["armed"]) == (KVER, False)
    assert found["needed"] > 40 << 20
    assert ["crashkernel=" in problem for problem in found["problems"]] == [True]
    assert cli.main(["status"]) == 1
    assert "crash kernel: not armed" in capfd.readouterr().out
    assert (machine.snapshot("/var"), machine.snapshot("/sys")) == before


def test_status_says_how_to_arm(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    machine.remove("/root/key.asc")
    machine.remove("/etc/default/tinykdump")
    assert cli.main(["status"]) == 1
    text = capfd.readouterr().out
    assert "key:          none\n" in text
    assert "needed" not in text
    make_key(machine.host, create=True)
    cli.main(["-b"])
    machine.write("/sys/kernel/kexec_crash_size", str(128 << 20))
    assert cli.main(["status"]) == 1
    assert "problem:      no crash kernel is loaded (run tinykdump -l;" in capfd.readouterr().out


def test_status_while_kdump_service_is_enabled(
    machine: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line, whether or not its crash kernel is loaded."""
    cli.main(["-b"])
    machine.write("/sys/kernel/kexec_crash_size", str(128 << 20))
    enable_kdump(machine)
    for loaded in "01":
        machine.write("/sys/kernel/kexec_crash_loaded", loaded)
        capfd.readouterr()
        assert cli.main(["status", "--json"]) == 1
        (problem,) = json.loads(capfd.readouterr().out)["problems"]
        assert problem == (
            "kdump.service is enabled and would unload tinykdump's crash kernel (run systemctl "
            "disable --now kdump.service, or set takeover = yes in /etc/default/tinykdump)"
        )


def armed(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    """Build an image, and mark it as loaded."""
    cli.main(["-b"])
    machine.write("/run/tinykdump/loaded.json", machine.path(f"{STATE}/manifest.json").read_bytes())
    machine.write("/sys/kernel/kexec_crash_size", str(128 << 20))
    machine.write("/sys/kernel/kexec_crash_loaded", "1")
    capfd.readouterr()


def armed_and_live(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_live(monkeypatch)
    monkeypatch.setattr("tinykdump.image.build._try_programs", lambda _: None)
    armed(machine, capfd)


def test_status_when_armed(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    armed(machine, capfd)
    assert cli.main(["status"]) == 0
    text = capfd.readouterr().out
    assert f"armed with {KVER}\n" in text
    assert "problem:" not in text


OUTDATED = {
    "another stick": ("/etc/default/tinykdump", "[dump]\ntarget = LABEL=B\nencrypt = no\n",
                      "but the configuration has LABEL=B and key none"),
    "a newer image": (f"{STATE}/manifest.json", "plan", "is newer than the loaded one"),
    "another command line": (f"{STATE}/manifest.json", "cmdline", "is newer than the loaded one"),
    "another setting": ("/etc/default/tinykdump", "[dump]\nkey = /root/key.asc\nkeep = 7\n",
                        "the loaded image was made for another configuration or other devices"),
    "too little memory": ("/sys/kernel/kexec_crash_size", "1048576", "loaded crash kernel needs "),
}  # fmt: skip


@pytest.mark.parametrize("case", OUTDATED.values(), ids=OUTDATED)
def test_status_describes_the_loaded_image(
    machine: FakeHost, keys: Keyring, capfd: pytest.CaptureFixture[str],
    case: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    path, text, says = case
    armed_and_live(machine, capfd, monkeypatch)
    if path.startswith(STATE):
        old = json.loads(machine.path(path).read_text())
        text = json.dumps({**old, text: "newer"})
    machine.write(path, text)
    cli.main(["status", "--json"])
    found = json.loads(capfd.readouterr().out)
    (problem,) = found["problems"]
    assert says in problem
    assert found["target"] == "LABEL=TINYKDUMP"
    assert found["key"] == keys.fingerprint("good@example.org")


def test_status_says_nothing_of_an_image_that_still_serves(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an update of a library, or with another stick than the one that it was built for.

    The image of another kernel can mount more, and a controller that was there can be gone.
    """
    machine.module("kernel/fs/ext4/ext4.ko")
    machine.module("kernel/fs/xfs/xfs.ko")
    machine.module("kernel/drivers/usb/host/ohci-pci.ko")
    machine.write("/etc/default/tinykdump.d/m.conf", "[image]\nmodules = ohci_pci\n")
    plugged.plug(machine, "ext4", udev=False)
    armed_and_live(machine, capfd, monkeypatch)
    machine.remove("/etc/default/tinykdump.d/m.conf")
    image = json.loads(machine.path(f"{STATE}/manifest.json").read_text())
    other = {**image, "kver": "6.2.0", "filesystems": ["vfat", "xfs"], "filesystem_bytes": [1, 1]}
    machine.write("/var/lib/tinykdump/images/6.2.0/manifest.json", json.dumps(other))
    assert cli.main(["status"]) == 0
    assert "tinykdump -l" not in capfd.readouterr().out
    machine.remove("/sys/class/block")
    plugged.plug(machine, "vfat", "sdc1", udev=False)
    busybox = machine.path("/usr/bin/busybox")
    busybox.write_bytes(busybox.read_bytes() + b"newer")
    assert cli.main(["status"]) == 0
    assert "tinykdump -l" not in capfd.readouterr().out


def mounted(machine: FakeHost) -> str:
    """Plug in a stick that is mounted; returns the directory of this machine on it."""
    plugged.plug(machine, "vfat")
    machine.write("/proc/self/mountinfo", "30 27 8:17 / /mnt rw shared:2 - vfat /dev/sdb1 rw\n")
    machine.path("/mnt").mkdir()
    return f"/mnt/tinykdump/{hardware.machine_name(machine.host)}"


def test_status_shows_the_dumps(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    dumps = mounted(machine)
    for time in ("20260101T000000Z", "20260102T000000Z.partial"):
        machine.path(f"{dumps}/{time}").mkdir(parents=True)
    machine.path("/mnt/tinykdump/another/20270101T000000Z").mkdir(parents=True)
    machine.path(f"{dumps}/z\x1b[2J").mkdir()  # a hostile name
    machine.write(f"{dumps}/20260103T000000Z")
    machine.link(f"{dumps}/20260104T000000Z", "/etc")
    cli.main(["status", "--json"])
    found = json.loads(capfd.readouterr().out)
    assert (found["stick"], found["last_dump"], found["dumps"], found["incomplete_dumps"]) == (
        "/dev/sdb1", f"{dumps}/20260102T000000Z.partial", 2, 1,
    )  # fmt: skip
    cli.main(["status"])
    assert "\ndumps:        2, 1 incomplete\n" in capfd.readouterr().out


@pytest.mark.parametrize("place", ["/mnt/tinykdump", ""])
def test_status_follows_no_link_on_a_stick(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    dumps = mounted(machine)
    machine.path("/elsewhere/20260101T000000Z").mkdir(parents=True)
    name = hardware.machine_name(machine.host)
    machine.link(f"/elsewhere/{name}", "/elsewhere")
    machine.link(place or dumps, "/elsewhere")
    cli.main(["status", "--json"])
    found = json.loads(capfd.readouterr().out)
    assert (found["last_dump"], found["dumps"]) == ("", 0)


def test_status_looks_at_the_stick(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    """Even if it is not mounted. Without problems it prints none."""
    armed(machine, capfd)
    machine.write("/proc/meminfo", "MemTotal: 900000 kB\nMemFree: 850000 kB\n")
    plugged.plug(machine, "vfat", size=5 << 30)
    assert cli.main(["status"]) == 0
    text = capfd.readouterr().out
    assert ("\nstick:        LABEL=TINYKDUMP, /dev/sdb1, vfat, 5.0 GiB free (a dump takes up to 48 "
            "MiB)\n") in text  # fmt: skip
    assert "problem:" not in text
    assert "dumps:" not in text
    cli.main(["status", "--json"])
    found = json.loads(capfd.readouterr().out)
    assert (found["stick"], found["stick_filesystem"]) == ("/dev/sdb1", "vfat")
    assert 5 << 30 > found["stick_free"] > 4.9 * (1 << 30)
    assert found["expected_dump"] == 50000 << 10
    assert (found["dumps"], found["incomplete_dumps"], found["problems"]) == (None, None, [])


def test_status_of_a_stick_that_the_crash_kernel_cannot_mount(
    machine: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    """The file systems of the loaded image count, not those of the configuration."""
    armed(machine, capfd)
    plugged.plug(machine, "exfat")
    machine.write("/etc/default/tinykdump", "[dump]\nkey = /root/key.asc\nfilesystems = exfat\n")
    assert cli.main(["status", "--json"]) == 0
    (problem,) = json.loads(capfd.readouterr().out)["problems"]
    assert problem.startswith("/dev/sdb1 has exfat, but the crash kernel mounts only vfat (")
    machine.module("kernel/fs/exfat/exfat.ko")
    assert cli.main(["-b"]) == 0
    made = parse(machine.path(f"{STATE}/manifest.json").read_text(), "m")
    assert made.filesystems == ("exfat",)


def test_the_file_system_of_the_stick_is_in_the_image(
    machine: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    """And stays there when the stick is unplugged; another stick takes its place."""

    def built() -> tuple[str, ...]:
        assert cli.main(["-b"]) == 0
        image = parse(machine.path(f"{STATE}/manifest.json").read_text(), "m")
        shown = [f"{name} {size} bytes" for name, size in zip(
            image.filesystems, image.filesystem_bytes, strict=True)]  # fmt: skip
        assert f"\nfile systems: {', '.join(shown)}\n" in capfd.readouterr().out
        assert all(image.filesystem_bytes)
        return image.filesystems

    machine.module("kernel/fs/exfat/exfat.ko")
    machine.module("kernel/fs/ext4/ext4.ko")
    assert built() == ("vfat", "exfat")
    plugged.plug(machine, "ext4", udev=False)
    assert built() == ("vfat", "exfat", "ext4")
    machine.remove("/sys/class/block")
    assert built() == ("vfat", "exfat", "ext4")
    plugged.plug(machine, "exfat", "sdc1", udev=False)
    assert built() == ("vfat", "exfat")


def test_an_image_of_an_older_version(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    """It counts as tinykdump's. It is rebuilt, because its manifest lists no file systems."""
    armed(machine, capfd)
    for path in (f"{STATE}/manifest.json", "/run/tinykdump/loaded.json"):
        old = json.loads(machine.path(path).read_text())
        del old["filesystems"], old["filesystem_bytes"]
        machine.write(path, json.dumps(old))
    assert cli.main(["status", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["armed"]
    plan = build.draft(machine.host, load_config(machine.host, {}), machine.kernel())
    old_image = parse(machine.path(f"{STATE}/manifest.json").read_text(), "m")
    assert not build.is_current(plan, old_image)


@pytest.mark.parametrize(
    ("path", "content", "problem"),
    [
        ("/sys/kernel/kexec_crash_loaded", "1", "another program's crash kernel is loaded"),
        (f"{STATE}/manifest.json", "{", "is damaged"),
        (f"/lib/modules/{KVER}/vmlinuz", "", "is not a bzImage"),
        ("/root/key.asc", "", "no OpenPGP keys"),
    ],
)
def test_status_names_problems(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], path: str, content: str, problem: str
) -> None:
    cli.main(["-b"])
    machine.write(path, content)
    capfd.readouterr()
    assert cli.main(["status", "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert [line for line in found["problems"] if problem in line]


def test_a_damaged_manifest_is_replaced(machine: FakeHost) -> None:
    cli.main(["-b"])
    first = machine.snapshot()
    machine.write(f"{STATE}/manifest.json", "{", 0o600)
    assert cli.main(["-b"]) == 0
    assert machine.snapshot() == first


def test_estimate_before_there_is_an_image(
    machine: FakeHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes nothing, makes no key, and is close to what the image then needs."""
    machine.remove("/etc/default/tinykdump")
    before = machine.snapshot("/")
    assert cli.main(["estimate"]) == 0
    assert machine.snapshot("/") == before
    first = capfd.readouterr().out
    assert f"\n{KVER} has no image yet: its packed size was computed with zlib\n" in first
    make_live(monkeypatch)
    monkeypatch.setattr("tinykdump.image.build._try_programs", lambda _: None)
    assert cli.main(["-b"]) == 0
    capfd.readouterr()
    assert cli.main(["estimate"]) == 0
    second = capfd.readouterr().out
    assert "has no image yet" not in second
    (guess,), (need,) = (
        [int(size) for size in re.findall(r"^to reserve +(\d+)", text, re.MULTILINE)]
        for text in (first, second)
    )
    assert need <= guess <= need + 4


def test_an_image_is_sketched_as_it_is_built(machine: FakeHost) -> None:
    plan = build.draft(machine.host, load_config(machine.host, {}), machine.kernel())
    built, packed = build.build(machine.host, plan, Path("/run/tinykdump"))
    sketch = build.sketch(plan)
    assert replace(built, packed=0, inputs=(), sha256="") == replace(sketch, packed=0)
    assert len(packed) * 0.9 < sketch.packed < len(packed) * 1.5


def test_a_card_reader_that_was_there_before(machine: FakeHost) -> None:
    """udev may not have found it yet when the machine boots; usb-storage does not drive it."""
    machine.module("kernel/drivers/usb/storage/ums-realtek.ko", [("depends", "usb-storage")])
    path = "pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0"
    host = Host(machine.root, live=True)

    def planned() -> Manifest:
        return build.sketch(actions.draft(host, load_config(host, {}), KVER))

    assert "ums_realtek" not in planned().modules
    machine.device(path, "usb", "ums-realtek", "ums_realtek")
    machine.write(f"{STATE}/manifest.json", planned().to_json())
    machine.path(f"/sys/devices/{path}/driver").unlink()
    assert "ums_realtek" in planned().modules


def test_a_watchdog_that_was_running_before(machine: FakeHost) -> None:
    """A program may not have started it yet when the machine boots. Its bus comes with it."""
    machine.module("kernel/drivers/watchdog/iTCO_wdt.ko")
    machine.module("kernel/drivers/i2c/i2c-i801.ko")
    smbus, state = "pci0000:00/0000:00:1f.4", "/sys/class/watchdog/watchdog0/state"
    machine.device(smbus, "pci", "i801_smbus", "i2c_i801")
    machine.device(f"{smbus}/iTCO_wdt", "platform", "iTCO_wdt", "iTCO_wdt")
    machine.link("/sys/class/watchdog/watchdog0/device", f"/sys/devices/{smbus}/iTCO_wdt")
    host = Host(machine.root, live=True)

    def planned(state_now: str) -> Manifest:
        machine.write(state, state_now)
        return build.sketch(actions.draft(host, load_config(host, {}), KVER))

    first, running = planned("inactive"), planned("active")
    assert [*running.modules] == ["i2c_i801", "iTCO_wdt", *first.modules]
    machine.write(f"{STATE}/manifest.json", running.to_json())
    assert planned("inactive").modules == running.modules


def test_estimate_of_a_dump(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    machine.write("/proc/meminfo", "MemTotal: 900000 kB\nMemFree: 800000 kB\n")
    assert cli.main(["estimate"]) == 0
    assert capfd.readouterr().out.endswith(
        "\n\na dump now:  up to 97 MiB, without compression\n"
        "its time:    unknown (plug in the stick)\n"
    )
    dumps = mounted(machine)
    place = machine.path(f"{dumps}/20260101T000000Z")
    place.mkdir(parents=True)
    for name, size, time in (("dmesg.txt.gpg.000", 9, 100), ("vmcore.flat.gpg.000", 1 << 24, 100),
                             ("SHA256SUMS", 0, 116)):  # fmt: skip
        (place / name).write_bytes(bytes(size))
        os.utime(place / name, (time, time))
    assert cli.main(["estimate"]) == 0
    assert capfd.readouterr().out.endswith(
        "\nits time:    up to 98 s at 1.0 MiB/s, as the dump 20260101T000000Z\n"
    )
    machine.write("/proc/meminfo", "")
    assert cli.main(["estimate"]) == 0
    assert "a dump now:  size unknown" in capfd.readouterr().out


@pytest.mark.usefixtures("machine")
def test_unload_when_nothing_is_loaded(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["unload"]) == 0
    assert capfd.readouterr().out == "tinykdump's crash kernel was not loaded\n"


SIZE, LOADED = "/sys/kernel/kexec_crash_size", "/sys/kernel/kexec_crash_loaded"


@pytest.fixture
def loading(machine: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A machine with an image. kexec(8) is simulated: it cannot work on a directory tree."""

    def kexec(*words: str) -> None:
        machine.write(LOADED, str(int(words != ("--unload",))))

    assert cli.main(["-b"]) == 0
    monkeypatch.setattr(load, "_kexec", kexec)
    # The reservation of crashkernel= has the right size.
    image = parse(machine.path(f"{STATE}/manifest.json").read_text(), "m")
    machine.write(SIZE, str(load.need_of(machine.host, image).total))
    return machine


def test_an_image_that_cannot_be_rebuilt_is_loaded_as_it_is(
    loading: FakeHost, keys: Keyring, capfd: pytest.CaptureFixture[str]
) -> None:
    """For example at a boot with a damaged key. One line says so."""
    loading.remove("/root/key.asc")
    capfd.readouterr()
    assert cli.main(["--load"]) == 0
    out, err = capfd.readouterr()
    assert err == (
        f"tinykdump: cannot rebuild the image of {KVER}, using the existing one: /root/key.asc: "
        "No such file or directory (check that the file exists and is readable)\n"
    )
    assert f"key {keys.fingerprint('good@example.org')}\n" in out
    assert "\nloaded; " in out
    assert loading.path(LOADED).read_text() == "1"


ANOTHER = {
    "a key is named": ("", ["-l", "-k", "/root/none.asc"]),
    "a build is requested": ("", ["-l", "-b"]),
    "a configuration is named": ("", ["-l", "-c", "/etc/default/tinykdump"]),
    "it does not encrypt": ("[dump]\nencrypt = no\n", ["-l"]),
    "it is damaged": ("", ["-l"]),
}


@pytest.mark.parametrize("case", ANOTHER)
def test_an_older_image_is_not_loaded_if(
    loading: FakeHost, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    before, words = ANOTHER[case]
    if before:
        kept = loading.path("/etc/default/tinykdump").read_text()
        loading.write("/etc/default/tinykdump", before)
        assert cli.main(["-b"]) == 0
        loading.write("/etc/default/tinykdump", kept)
    if case == "it is damaged":
        loading.write(f"{STATE}/{loading.image().name}", b"")
    loading.remove("/root/key.asc")
    words = [str(loading.path(word)) if word.startswith("/etc") else word for word in words]
    capfd.readouterr()
    assert cli.main(words) == 1
    assert capfd.readouterr().err.count("\n") == 1
    assert loading.path(LOADED).read_text() == "0\n"


def test_the_state_is_readable_by_root_only_whatever_the_umask(machine: FakeHost) -> None:
    machine.remove("/etc/default/tinykdump")
    before = os.umask(0)
    try:
        make_key(machine.host, create=True)
        assert cli.main(["-b"]) == 0
    finally:
        os.umask(before)
    for place in (
        "/var/lib/tinykdump",
        "/var/lib/tinykdump/images",
        STATE,
        "/var/lib/tinykdump/keys",
        "/run/tinykdump",
    ):
        assert machine.path(place).stat().st_mode & 0o777 == 0o700, place
    machine.path("/var/lib/tinykdump").chmod(0o777)  # as by an older version
    assert cli.main(["-b"]) == 0
    assert machine.path("/var/lib/tinykdump").stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("machine")
def test_the_files_of_a_kernel_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build passes on what it has read: no file is read twice. The note about makedumpfile, which
    is no part of it, looks at the configuration again."""
    opened: list[str] = []
    for name in ("read", "text"):
        door = getattr(Host, name)

        def through(host: Host, path: str | Path, door: Any = door) -> Any:
            opened.append(str(path))
            return door(host, path)

        monkeypatch.setattr(Host, name, through)
    make_live(monkeypatch)
    monkeypatch.setattr(build, "_try_programs", lambda _top: None)  # they cannot run
    assert cli.main(["-b"]) == 0
    for name, times in {"config": 2, "vmlinuz": 1}.items():
        assert opened.count(f"/lib/modules/{KVER}/{name}") == times


@pytest.mark.parametrize(("end", "expected"), [(0x3FFFFFFF, True), (1 << 50, False)])
def test_page_tables_have_fewer_levels_where_that_is_enough(
    machine: FakeHost, end: int, *, expected: bool
) -> None:
    machine.write("/proc/iomem", f"00100000-{end:08x} : System RAM\n")
    image = actions.draft(machine.host, load_config(machine.host, {}), KVER)
    assert ("no5lvl" in image.cmdline.split()) == expected


@pytest.mark.parametrize(
    "command", [(sys.executable, "-m", "tinykdump"), ("src/tinykdump.sh",)], ids=["python", "sh"]
)
def test_ways_to_start_tinykdump(command: tuple[str, ...]) -> None:
    """As a Python module, and as /usr/bin/tinykdump."""
    done = subprocess.run([*command, "--version"], cwd=Path(__file__).parents[2],
                          env={"TINYKDUMP_PYTHON": sys.executable}, capture_output=True,
                          check=False, text=True)  # fmt: skip
    assert (done.stdout, done.stderr) == (f"tinykdump {__version__}\n", "")
