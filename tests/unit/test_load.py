"""Loading that fails, on a played kernel: what was there before has to be there afterwards.

A real kernel does not fail at every one of these places when it is told to; those that it can be
made to are in tests/vm/test_capture.py and tests/kernel/service.
"""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.fakehost import KVER, STATE, FakeHost
from tinykdump import load, manifest, state
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.memory import MIB

SIZE, SIZE_MAX, LOADED = (
    f"/sys/kernel/{name}"
    for name in ("kexec/crash_size", "kexec/crash_size_max", "kexec/crash_loaded")
)

# Of the image below: init_size alone is 40 MiB.
MINIMUM, NEED = 66 * MIB, 72 * MIB


@dataclass
class Kernel:
    """What the kernel does with kexec(8) and with a size that is written."""

    fake: FakeHost
    image: bytes = b""  # that is loaded
    most: int = 1 << 40  # bytes that can be made free
    refuse: bytes = b"none"  # an image that it does not load
    interrupt: bool = False
    broken: bool = False

    def number(self, name: str) -> int:
        return int(self.fake.path(name).read_text())

    def set(self, name: str, value: int) -> None:
        self.fake.write(name, str(value))

    def kexec(self, *words: str) -> None:
        self.image = b""  # what was loaded goes first, whatever becomes of it
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
        if grows and not self.number(SIZE_MAX):
            raise OSError(errno.EINVAL, "no")
        if grows and int(value) > self.most:
            raise OSError(errno.ENOMEM, "no")
        self.set(SIZE, int(value))


@pytest.fixture
def kernel(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """One that grows, with nothing loaded."""
    for name, value in ((SIZE, "0"), (SIZE_MAX, str(1 << 30)), (LOADED, "0")):
        fake.write(name, value)
    played = Kernel(fake)
    monkeypatch.setattr(load, "_kexec", played.kexec)
    monkeypatch.setattr(Host, "write", played.write)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    monkeypatch.setattr(os, "sync", lambda: None)
    return played


def built(
    kernel: Kernel, content: bytes = b"image", *, margin: int = 8, unpacked: int = 5
) -> manifest.Manifest:
    """An image of the running kernel, in place of the one that was there."""
    made = manifest.Manifest(
        kver=KVER, kernel=f"/lib/modules/{KVER}/vmlinuz", plan="", modules=(), inputs=(), key="",
        target="LABEL=X", compression="GZIP", cmdline="", margin=margin, packed=0,
        unpacked=unpacked * MIB, drivers=2 * MIB,
    )  # fmt: skip
    kernel.fake.write(f"{STATE}/initramfs.img", content)
    kernel.fake.write(f"{STATE}/manifest.json", made.to_json())
    return made


def loaded(kernel: Kernel, image: manifest.Manifest, *, takeover: bool = False) -> int:
    return load.load(kernel.fake.host, image, takeover=takeover).size


def fails(kernel: Kernel, image: manifest.Manifest, *, takeover: bool = False) -> str:
    with pytest.raises(TinykdumpError) as failed:
        loaded(kernel, image, takeover=takeover)
    return failed.value.message


def test_the_need_of_these_tests(kernel: Kernel) -> None:
    need = load.need_of(kernel.fake.host, built(kernel))
    assert (need.minimum, need.total) == (MINIMUM, NEED)


def test_what_the_crashed_kernel_adds_to_the_need(kernel: Kernel) -> None:
    """The running one's log, which is read in memory, and memory that it encrypts."""
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


def test_what_can_not_grow_to_the_margin_does_without(kernel: Kernel) -> None:
    kernel.set(SIZE, MINIMUM)
    kernel.most = MINIMUM
    assert loaded(kernel, built(kernel)) == MINIMUM
    assert kernel.image == b"image"


Spoil = Callable[[Kernel], None]
SPOILED: dict[str, Spoil] = {
    "no memory": lambda kernel: setattr(kernel, "most", NEED),
    "not loaded": lambda kernel: setattr(kernel, "refuse", b"new"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_the_old_image_is_back(kernel: Kernel, spoil: Spoil) -> None:
    """Its bytes, though another one has its name now, and in as much memory as it had."""
    old = built(kernel, b"old")
    loaded(kernel, old)
    spoil(kernel)
    new = built(kernel, b"new", unpacked=30)
    assert "gone" not in fails(kernel, new)
    assert (kernel.image, kernel.number(SIZE)) == (b"old", NEED)
    assert load.ours(kernel.fake.host) == old


def test_a_failed_first_load_takes_no_memory(kernel: Kernel) -> None:
    kernel.refuse = b"image"
    assert "gone" not in fails(kernel, built(kernel))
    assert (kernel.image, kernel.number(SIZE)) == (b"", 0)
    assert load.ours(kernel.fake.host) is None


def test_a_reservation_that_can_not_grow_again_is_not_made_smaller(kernel: Kernel) -> None:
    kernel.set(SIZE_MAX, 0)
    kernel.set(SIZE, 192 * MIB)
    old = built(kernel, b"old", margin=100)
    assert loaded(kernel, old) == 2 * MINIMUM
    kernel.refuse = b"new"
    fails(kernel, built(kernel, b"new"))
    assert (kernel.image, kernel.number(SIZE)) == (b"old", 2 * MINIMUM)
    kernel.refuse = b""
    assert loaded(kernel, built(kernel, b"new")) == NEED
    assert kernel.image == b"new"


def test_an_interrupt_leaves_the_machine_armed(kernel: Kernel) -> None:
    loaded(kernel, built(kernel, b"old"))
    kernel.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        loaded(kernel, built(kernel, b"new", margin=60))
    assert (kernel.image, kernel.number(SIZE)) == (b"old", NEED)


def test_what_is_not_ours_can_not_be_put_back(kernel: Kernel) -> None:
    kernel.set(SIZE, NEED)
    kernel.set(LOADED, 1)
    image = built(kernel)
    assert fails(kernel, image) == "a crash kernel that is not ours is loaded"
    kernel.refuse = b"image"
    said = fails(kernel, image, takeover=True)
    assert said.endswith("; what was there before is gone, too: something else had loaded it")
    kernel.refuse = b""
    assert loaded(kernel, image, takeover=True) == NEED


def test_no_way_back_is_said(kernel: Kernel) -> None:
    loaded(kernel, built(kernel, b"old"))
    kernel.refuse = b"new"
    new = built(kernel, b"new")
    kernel.fake.remove(f"{STATE}/loaded.img")
    assert "kexec failed: no; what was there before is gone, too: " in fails(kernel, new)


def test_what_can_not_be_noted_is_not_loaded(kernel: Kernel) -> None:
    """Whoever finds it would take it for somebody else's."""
    kernel.fake.write(str(state.RUNTIME))
    with pytest.raises(OSError, match="File exists"):
        loaded(kernel, built(kernel))
    assert (kernel.image, kernel.number(SIZE)) == (b"", 0)


@pytest.mark.parametrize("text", ["{", json.dumps({"kver": KVER})])
def test_a_damaged_note(kernel: Kernel, text: str) -> None:
    loaded(kernel, built(kernel))
    kernel.fake.write(str(load.LOADED), text)
    assert load.ours(kernel.fake.host) is None


def test_the_note_goes_with_what_it_is_about(kernel: Kernel) -> None:
    """Also where the memory can not be given back: somebody else may load something then."""
    loaded(kernel, built(kernel))
    kernel.broken = True
    with pytest.raises(TinykdumpError, match="was not changed to 0 MiB"):
        load.unload(kernel.fake.host)
    kernel.set(LOADED, 1)
    assert load.ours(kernel.fake.host) is None


def test_loading_another_kernels_image(kernel: Kernel) -> None:
    old = replace(built(kernel), kver="6.0")
    kernel.fake.write("/var/lib/tinykdump/6.0/initramfs.img", b"6.0")
    loaded(kernel, old)
    loaded(kernel, built(kernel, b"new"))
    assert kernel.image == b"new"
    kernel.refuse = b"newer"
    fails(kernel, built(kernel, b"newer"))
    assert kernel.image == b"new"
