# SPDX-License-Identifier: GPL-2.0-or-later
"""Loading on a simulated kernel: if it fails, the previous state must be restored.

A real kernel cannot be made to fail in all of these ways. Those in which it can are tested in
tests/vm/test_capture.py and tests/kernel/service.
"""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from tests.fakehost import KVER, SOURCE, STATE, FakeHost, enable_kdump
from tinykdump import load, reservation, state
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.image import manifest
from tinykdump.memory import MIB
from tinykdump.run import Finished

SIZE, SIZE_MAX, LOADED = (
    f"/sys/kernel/{name}"
    for name in ("kexec/crash_size", "kexec/crash_size_max", "kexec/crash_loaded")
)

# The need of the image below; 40 MiB of it are init_size.
MINIMUM, NEED = 66 * MIB, 72 * MIB
# With a margin of 100 %, before it is rounded up.
DOUBLE = 130 * MIB


@dataclass
class Kernel:
    """A simulated kernel: its answers to kexec(8) and to a new size of the reservation."""

    fake: FakeHost
    image: bytes = b""  # the loaded image
    most: int = 1 << 40  # the largest reservation, in bytes
    refuse: bytes = b"none"  # the content of an image that it does not load
    interrupt: bool = False
    broken: bool = False

    def number(self, name: str) -> int:
        return int(self.fake.path(name).read_text())

    def set(self, name: str, value: int) -> None:
        self.fake.write(name, str(value))

    def kexec(self, *words: str) -> None:
        self.image = b""  # the loaded image is always unloaded first
        self.set(LOADED, 0)
        if words == ("--unload",):
            return
        data = Path(words[0].removeprefix("--initrd=")).read_bytes()
        if data == self.refuse or self.number(SIZE) < MINIMUM:
            raise TinykdumpError("kexec failed: no", "see dmesg")
        self.image = data
        self.set(LOADED, 1)

    def write(self, name: str | Path, value: str) -> None:
        assert str(name) == SIZE
        if self.broken:
            raise OSError(errno.EIO, "no")
        if self.interrupt:
            self.interrupt = False
            raise KeyboardInterrupt
        if self.image:
            raise OSError(errno.ENOENT, "loaded")
        grows = int(value) > self.number(SIZE)
        if grows and (not self.number(SIZE_MAX) or self.number(SIZE)):
            raise OSError(errno.EINVAL, "not from 0")
        if grows and int(value) > self.most:
            raise OSError(errno.ENOMEM, "no")
        self.set(SIZE, int(value))


@pytest.fixture
def kernel(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A kernel that can grow its reservation, with no image loaded."""
    for name, value in ((SIZE, "0"), (SIZE_MAX, str(1 << 30)), (LOADED, "0")):
        fake.write(name, value)
    simulated = Kernel(fake)
    monkeypatch.setattr(load, "_kexec", simulated.kexec)
    monkeypatch.setattr(Host, "write", simulated.write)
    monkeypatch.setattr(reservation, "PATIENCE", 0.0)
    return simulated


def built(
    kernel: Kernel, content: bytes = b"image", *, margin: int = 8, unpacked: int = 5
) -> manifest.Manifest:
    """Replace the image of the running kernel."""
    made = manifest.Manifest(
        kver=KVER, kernel=f"/lib/modules/{KVER}/vmlinuz", plan="", modules=("usbcore",),
        inputs=(), key="", target="LABEL=X", compression="GZIP", cmdline="", margin=margin,
        packed=0, unpacked=unpacked * MIB, drivers=2 * MIB,
        sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    kernel.fake.write(str(state.image_path(made)), content)
    kernel.fake.write(f"{STATE}/manifest.json", made.to_json())
    return made


def loaded(kernel: Kernel, image: manifest.Manifest, *, takeover: bool = False) -> int:
    return load.load(kernel.fake.host, image, takeover=takeover).size


def fails(kernel: Kernel, image: manifest.Manifest, *, takeover: bool = False) -> str:
    with pytest.raises(TinykdumpError) as failed:
        loaded(kernel, image, takeover=takeover)
    return failed.value.message


def test_the_need_of_the_image_in_these_tests(kernel: Kernel) -> None:
    need = load.need_of(kernel.fake.host, built(kernel))
    assert (need.minimum, need.total) == (MINIMUM, NEED)


def test_properties_of_the_system_kernel_add_to_the_need(kernel: Kernel) -> None:
    """Its log, which the crash kernel reads into memory, and memory encryption."""
    host, image = kernel.fake.host, built(kernel, margin=0)
    before = load.need_of(host, image).total
    kernel.fake.write("/proc/cmdline", "root=/dev/vda1 log_buf_len=8M\n")
    assert load.need_of(host, image).total == before + (2 + 6 * 8 - 8) * MIB
    kernel.fake.write("/proc/cmdline", "root=/dev/vda1\n")
    kernel.fake.write("/sys/devices/system/cpu/possible", "0-511\n")
    kernel.fake.write(f"/lib/modules/{KVER}/config", "CONFIG_LOG_CPU_MAX_BUF_SHIFT=13\n")
    assert load.need_of(host, image).total == before + (2 + 6 * 8 - 8) * MIB
    kernel.fake.remove("/sys/devices/system/cpu/possible")
    encrypted = replace(image, cmdline="mem_encrypt=on")
    assert load.need_of(host, encrypted).total == before + 8 * MIB


def test_load_and_unload(kernel: Kernel) -> None:
    image = built(kernel)
    assert loaded(kernel, image) == NEED
    assert (kernel.image, load.ours(kernel.fake.host)) == (b"image", image)
    assert loaded(kernel, image) == NEED
    assert load.unload(kernel.fake.host)
    assert (kernel.image, kernel.number(SIZE)) == (b"", 0)
    assert not load.unload(kernel.fake.host)


def test_while_kdump_service_is_enabled_nothing_is_loaded_or_made_smaller(kernel: Kernel) -> None:
    kernel.set(SIZE_MAX, 0)
    kernel.set(SIZE, 192 * MIB)
    enable_kdump(kernel.fake)
    message = "kdump.service is enabled and would unload tinykdump's crash kernel"
    assert fails(kernel, built(kernel)) == message
    assert (kernel.image, kernel.number(SIZE)) == (b"", 192 * MIB)
    assert loaded(kernel, built(kernel), takeover=True) == NEED


def test_a_reservation_that_cannot_grow_to_the_margin_is_used(kernel: Kernel) -> None:
    kernel.set(SIZE, MINIMUM)
    kernel.most = MINIMUM
    assert loaded(kernel, built(kernel)) == MINIMUM
    assert kernel.image == b"image"


def test_a_reservation_that_is_too_small_grows(kernel: Kernel) -> None:
    kernel.set(SIZE, 32 * MIB)
    assert loaded(kernel, built(kernel)) == NEED
    assert kernel.image == b"image"


Failure = Callable[[Kernel], None]
FAILURES: dict[str, Failure] = {
    "no memory": lambda kernel: setattr(kernel, "most", NEED),
    "not loaded": lambda kernel: setattr(kernel, "refuse", b"new"),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_after_a_failure_the_old_image_is_loaded_again(kernel: Kernel, failure: Failure) -> None:
    """The same bytes, in a reservation of the same size, although the manifest is newer."""
    old = built(kernel, b"old")
    loaded(kernel, old)
    failure(kernel)
    new = built(kernel, b"new", unpacked=30)
    said = fails(kernel, new)
    assert "could not be restored" not in said
    assert said.endswith(f"; {KVER} is loaded again")
    assert (kernel.image, kernel.number(SIZE)) == (b"old", NEED)
    assert load.ours(kernel.fake.host) == old


def test_a_failed_first_load_reserves_no_memory(kernel: Kernel) -> None:
    kernel.refuse = b"image"
    assert "could not be restored" not in fails(kernel, built(kernel))
    assert (kernel.image, kernel.number(SIZE)) == (b"", 0)
    assert load.ours(kernel.fake.host) is None


def test_a_reservation_that_cannot_grow_is_shrunk_only_if_the_image_loads(kernel: Kernel) -> None:
    kernel.set(SIZE_MAX, 0)
    kernel.set(SIZE, 192 * MIB)
    old = built(kernel, b"old", margin=100)
    assert loaded(kernel, old) == DOUBLE
    kernel.refuse = b"new"
    fails(kernel, built(kernel, b"new"))
    assert (kernel.image, kernel.number(SIZE)) == (b"old", DOUBLE)
    kernel.refuse = b""
    assert loaded(kernel, built(kernel, b"new")) == NEED
    assert kernel.image == b"new"


def test_an_interrupt_leaves_the_machine_armed(kernel: Kernel) -> None:
    loaded(kernel, built(kernel, b"old"))
    kernel.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        loaded(kernel, built(kernel, b"new", margin=60))
    assert (kernel.image, kernel.number(SIZE)) == (b"old", NEED)


def test_an_interrupt_after_which_nothing_can_be_restored_says_so(kernel: Kernel) -> None:
    old = built(kernel, b"old")
    loaded(kernel, old)
    kernel.fake.remove(str(state.image_path(old)))
    kernel.interrupt = True
    said = fails(kernel, built(kernel, b"new", margin=60))
    assert said.startswith("interrupted; the machine is not armed any more: the previous state ")


def test_a_second_interrupt_waits_until_the_state_is_restored(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(kernel, built(kernel, b"old"))
    kernel.interrupt = True
    kexec = kernel.kexec

    def impatient(*words: str) -> None:
        if not kernel.interrupt:  # the first interrupt has happened
            os.kill(os.getpid(), signal.SIGINT)
        kexec(*words)

    monkeypatch.setattr(load, "_kexec", impatient)
    with pytest.raises(KeyboardInterrupt):
        loaded(kernel, built(kernel, b"new", margin=60))
    assert (kernel.image, kernel.number(SIZE)) == (b"old", NEED)


def test_another_programs_crash_kernel_cannot_be_restored(kernel: Kernel) -> None:
    kernel.set(SIZE, NEED)
    kernel.set(LOADED, 1)
    image = built(kernel)
    assert fails(kernel, image) == "another program's crash kernel is loaded"
    kernel.refuse = b"image"
    said = fails(kernel, image, takeover=True)
    assert said.endswith(
        "; the machine is not armed any more: the previous state could not be restored: another "
        "program had loaded it"
    )
    kernel.refuse = b""
    assert loaded(kernel, image, takeover=True) == NEED


def test_an_error_says_that_the_old_image_could_not_be_restored(kernel: Kernel) -> None:
    old = built(kernel, b"old")
    loaded(kernel, old)
    kernel.refuse = b"new"
    new = built(kernel, b"new")
    kernel.fake.remove(str(state.image_path(old)))
    assert fails(kernel, new).startswith(
        "kexec failed: no; the machine is not armed any more: the previous state could not be "
        "restored: "
    )


LOCKDOWN = "/sys/kernel/security/lockdown"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str | Path]]:
    """Calls of kexec(8) that ask whether a kernel is trusted; it is not, except good-kernel."""
    calls: list[Sequence[str | Path]] = []

    def run(argv: Sequence[str | Path], **_: object) -> Finished:
        calls.append(argv)
        said = "kexec_file_load failed: Operation not permitted"
        if str(argv[-1]).endswith("good"):
            said = "syscall kexec_file_load not available."
        return Finished(255, b"", f"{said}\n")

    monkeypatch.setattr(load, "run", run)
    return calls


def test_a_kernel_that_lockdown_refuses_leaves_the_machine_armed(
    kernel: Kernel, asked: list[Sequence[str | Path]]
) -> None:
    """The loaded one could not be loaded again either."""
    old = built(kernel, b"old")
    loaded(kernel, old)
    kernel.fake.write(LOCKDOWN, "none [integrity] confidentiality\n")
    assert fails(kernel, built(kernel, b"new")) == (
        "kexec failed: kexec_file_load failed: Operation not permitted; the crash kernel that is "
        "loaded stays"
    )
    assert (kernel.image, load.ours(kernel.fake.host)) == (b"old", old)
    assert "--load" in asked[0]


def test_a_kernel_that_lockdown_trusts_is_loaded(
    kernel: Kernel, asked: list[Sequence[str | Path]]
) -> None:
    loaded(kernel, built(kernel, b"old"))
    kernel.fake.write(LOCKDOWN, "none [integrity] confidentiality\n")
    kernel.fake.write("/boot/good", kernel.fake.path(f"/lib/modules/{KVER}/vmlinuz").read_bytes())
    loaded(kernel, replace(built(kernel, b"new"), kernel="/boot/good"))
    assert (kernel.image, len(asked)) == (b"new", 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [(LOCKDOWN, "[none] integrity confidentiality\n"),
     ("/proc/sys/kernel/kexec_load_limit_reboot", "0\n")],
)  # fmt: skip
def test_trust_is_not_asked_for_in_vain(
    kernel: Kernel, asked: list[Sequence[str | Path]], name: str, text: str
) -> None:
    """Without lockdown, or where the answer would be of the limit."""
    loaded(kernel, built(kernel, b"old"))
    kernel.fake.write(LOCKDOWN, "none [integrity] confidentiality\n")
    kernel.fake.write(name, text)
    loaded(kernel, built(kernel, b"new"))
    assert (kernel.image, asked) == (b"new", [])


def test_without_a_note_no_image_is_loaded(kernel: Kernel) -> None:
    """Without a note, it would count as another program's."""
    kernel.fake.write(str(state.RUNTIME))
    with pytest.raises(OSError, match="Not a directory"):
        loaded(kernel, built(kernel))
    assert (kernel.image, kernel.number(SIZE)) == (b"", 0)


@pytest.mark.parametrize("text", ["{", json.dumps({"kver": KVER})])
def test_a_damaged_note_is_no_note(kernel: Kernel, text: str) -> None:
    loaded(kernel, built(kernel))
    kernel.fake.write(str(state.LOADED), text)
    assert load.ours(kernel.fake.host) is None


def test_the_note_is_deleted_when_the_image_is_unloaded(kernel: Kernel) -> None:
    """Even if the memory cannot be freed: another program may load an image next."""
    loaded(kernel, built(kernel))
    kernel.broken = True
    with pytest.raises(TinykdumpError, match="was not changed to 0 MiB"):
        load.unload(kernel.fake.host)
    kernel.set(LOADED, 1)
    assert load.ours(kernel.fake.host) is None


def test_loading_another_kernels_image(kernel: Kernel) -> None:
    old = replace(built(kernel), kver="6.0")
    kernel.fake.write(str(state.image_path(old)), b"image")
    loaded(kernel, old)
    loaded(kernel, built(kernel, b"new"))
    assert kernel.image == b"new"
    kernel.refuse = b"newer"
    fails(kernel, built(kernel, b"newer"))
    assert kernel.image == b"new"


# Loads an image, and kills itself in the simulated kexec(8): TREE KVER WHEN.
KILLED = f"""
import os, signal, sys
from pathlib import Path
from tinykdump import load, reservation, state
from tinykdump.host import Host
host, kver, when = Host(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
def kexec(*words):
    if words == ("--unload",) or when == "after":
        host.path("{LOADED}").write_text(str(int(words != ("--unload",))))
    if words != ("--unload",) or when == "unloading":
        os.kill(os.getpid(), signal.SIGKILL)
load._kexec = kexec
load.load(host, state.read_manifest(host, kver), takeover=False)
"""


def killed(kernel: Kernel, when: str) -> None:
    """Load the image in another process, which is killed."""
    argv = [sys.executable, "-c", KILLED, str(kernel.fake.root), KVER, when]
    assert (
        subprocess.run(argv, env={"PYTHONPATH": SOURCE}, check=False).returncode == -signal.SIGKILL
    )


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_after_a_kill_in_kexec_the_image_counts_as_ours(kernel: Kernel, *, first: bool) -> None:
    kernel.set(SIZE, NEED)
    if not first:
        loaded(kernel, built(kernel, b"old"))
    image = built(kernel, b"new")
    killed(kernel, "after")
    assert kernel.number(LOADED) == 1
    assert load.ours(kernel.fake.host) == image
    kernel.image = b"new"
    assert loaded(kernel, image) == NEED
    assert load.unload(kernel.fake.host)


@pytest.mark.parametrize("when", ["before", "unloading"])
def test_after_a_kill_before_kexec_no_image_counts_as_ours(kernel: Kernel, when: str) -> None:
    kernel.set(SIZE, NEED)
    loaded(kernel, built(kernel, b"old"))
    image = built(kernel, b"new")
    killed(kernel, when)
    kernel.image = b""  # the other process has unloaded it
    assert load.ours(kernel.fake.host) is None
    assert not load.unload(kernel.fake.host)
    kernel.set(LOADED, 1)
    assert fails(kernel, image) == "another program's crash kernel is loaded"


def test_a_damaged_image_is_not_loaded(kernel: Kernel) -> None:
    """The previous image stays loaded."""
    loaded(kernel, built(kernel, b"old"))
    new = built(kernel, b"new")
    kernel.fake.write(str(state.image_path(new)), b"neW")
    assert fails(kernel, new) == f"{state.image_path(new)} is damaged"
    assert kernel.image == b"old"


def test_a_damaged_old_image_is_not_restored(kernel: Kernel) -> None:
    old = built(kernel, b"old")
    loaded(kernel, old)
    kernel.fake.write(str(state.image_path(old)), b"")
    kernel.refuse = b"new"
    assert f"could not be restored: {state.image_path(old)} is damaged" in fails(
        kernel, built(kernel, b"new")
    )


def test_unneeded_images_are_deleted(kernel: Kernel) -> None:
    old, new = built(kernel, b"old"), built(kernel, b"new")
    loaded(kernel, old)
    assert len(state.stored(kernel.fake.host)) == 2
    loaded(kernel, new)
    assert state.stored(kernel.fake.host) == (state.image_path(new),)


def test_an_image_that_an_older_version_loaded_counts_as_ours(kernel: Kernel) -> None:
    """Its image has another name, and its manifest no checksum."""
    loaded(kernel, built(kernel, b"old"))
    old = {**asdict(built(kernel, b"old")), "inputs": []}
    del old["sha256"]
    kernel.fake.write(str(state.LOADED), json.dumps(old))
    kernel.fake.write(f"{STATE}/loaded.img", b"old")
    kernel.refuse = b"new"
    assert "could not be restored" not in fails(kernel, built(kernel, b"new"))
    assert kernel.image == b"old"
    kernel.refuse = b""
    new = built(kernel, b"newer")
    loaded(kernel, new)
    assert state.stored(kernel.fake.host) == (state.image_path(new),)


def test_an_image_that_stays_loaded_is_not_reported_as_unloaded(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = built(kernel)
    loaded(kernel, image)
    monkeypatch.setattr(load, "_kexec", lambda *_words: None)
    with pytest.raises(TinykdumpError, match=r"^kexec did not unload the crash kernel"):
        load.unload(kernel.fake.host)
    assert load.ours(kernel.fake.host) == image
