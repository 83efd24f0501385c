# SPDX-License-Identifier: GPL-2.0-or-later
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakehost import FakeHost
from tinykdump import reservation
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.memory import MIB, Need, Row
from tinykdump.reservation import Reservation

OLD = {"/sys/kernel/kexec_crash_size": "0\n", "/sys/kernel/kexec_crash_loaded": "0\n"}
NEW = {"/sys/kernel/kexec/crash_size": "1048576\n", "/sys/kernel/kexec/crash_loaded": "1\n"}
CMA = {**NEW, "/sys/kernel/kexec/crash_size_max": "268435456\n"}
OLD_CMA = {**OLD, "/sys/kernel/kexec_crash_size_max": "268435456\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (OLD, Reservation(0, 0, False)),
        (NEW, Reservation(MIB, 0, True)),
        ({**OLD, **NEW}, Reservation(MIB, 0, True)),
        (CMA, Reservation(MIB, 256 * MIB, True)),
        (OLD_CMA, Reservation(0, 256 * MIB, False)),
        ({"/sys/kernel/kexec_crash_size": "4096"}, Reservation(4096, 0, False)),
    ],
)
def test_read(fake: FakeHost, files: dict[str, str], expected: Reservation) -> None:
    for path in OLD:
        fake.remove(path)
    for path, text in files.items():
        fake.write(path, text)
    assert reservation.read(fake.host) == expected


@pytest.mark.parametrize("text", [None, "", "many"])
def test_a_kernel_without_it(fake: FakeHost, text: str | None) -> None:
    fake.remove("/sys/kernel/kexec_crash_size")
    if text is not None:
        fake.write("/sys/kernel/kexec_crash_size", text)
    with pytest.raises(TinykdumpError, match="no support for crash kernels"):
        reservation.read(fake.host)


def need(minimum: int, margin: int = 0) -> Need:
    return Need((Row("all", minimum * MIB),), Row("margin", margin * MIB))


@pytest.mark.parametrize(
    ("now", "wanted", "size"),
    [
        (Reservation(64 * MIB, 0, False), need(64), 64),
        (Reservation(192 * MIB, 0, True), need(64, 6), 70),  # shrinks what is too large
        (Reservation(0, 64 * MIB, False), need(60, 4), 64),  # grows
        (Reservation(64 * MIB, 66 * MIB, False), need(64, 6), 64),  # goes without the margin
    ],
)
def test_goal(now: Reservation, wanted: Need, size: int) -> None:
    assert reservation.goal(now, wanted) == size * MIB


@pytest.mark.parametrize(
    ("now", "wanted", "says"),
    [
        (Reservation(0, 0, False), need(2), "no memory is reserved for a crash kernel, 2 MiB"),
        (Reservation(8 * MIB, 16 * MIB, True), need(18, 2), "8 MiB are reserved .* 20 MiB"),
    ],
)
def test_a_goal_that_cannot_be_reached_is_an_error(
    now: Reservation, wanted: Need, says: str
) -> None:
    with pytest.raises(TinykdumpError, match=rf"^{says}.*\(add crashkernel=\d+M "):
        reservation.goal(now, wanted)


@pytest.mark.parametrize("path", ["/sys/kernel/kexec_crash_size", "/sys/kernel/kexec/crash_size"])
def test_resize(fake: FakeHost, path: str) -> None:
    fake.write(path, "0")
    assert reservation.resize(fake.host, 64 * MIB) == 64 * MIB
    assert fake.path(path).read_text() == str(64 * MIB)


@dataclass
class Clock:
    """A clock that advances only in sleep()."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    played = Clock()
    monkeypatch.setattr("time.sleep", played.sleep)
    monkeypatch.setattr("time.monotonic", lambda: played.now)
    return played


# After these errors, another try can succeed.
PASSES = (errno.ENOMEM, errno.EBUSY, errno.EINTR)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOENT, "a crash kernel is loaded"),
        (errno.EINVAL, "the kernel can only make it smaller"),
        (errno.ENOMEM, "not enough memory"),
        (errno.EBUSY, "another program is changing it"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_an_error_of_the_kernel_is_explained(
    fake: FakeHost, clock: Clock, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    def refuse(_descriptor: int, _data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.write", refuse)
    with pytest.raises(TinykdumpError, match=rf"was not changed to 64 MiB: {says}"):
        reservation.resize(fake.host, 64 * MIB)
    assert sum(clock.pauses) == pytest.approx(
        reservation.PATIENCE, abs=reservation.LONGEST_PAUSE
    ) or (number not in PASSES and not clock.pauses)


@pytest.mark.parametrize("failures", [1, 6, 30])
def test_growing_is_retried(
    fake: FakeHost, clock: Clock, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    write, left = os.write, [failures]

    def refuse_at_first(descriptor: int, data: bytes) -> int:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ENOMEM, "no")
        return write(descriptor, data)

    monkeypatch.setattr("os.write", refuse_at_first)
    fake.write("/sys/kernel/kexec_crash_size", "0")
    assert reservation.resize(fake.host, 64 * MIB) == 64 * MIB
    assert clock.pauses == ([0.1, 0.2, 0.4, 0.8, 1.6] + 25 * [2.0])[:failures]


DROP_CACHES = "/proc/sys/vm/drop_caches"
SLABS = "/sys/kernel/slab"


def refuse_until(
    ready: Callable[[], bool], code: int, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    """Refuse sizes until ``ready``, but take other values. Returns the times of the tries."""
    write, tried = os.write, list[float]()

    def refuse(descriptor: int, data: bytes) -> int:
        if data not in (b"1", b"3") and not ready():
            tried.append(clock.now)
            raise OSError(code, "no")
        return write(descriptor, data)

    monkeypatch.setattr("os.write", refuse)
    return tried


def test_caches_are_dropped_if_no_try_succeeds(
    fake: FakeHost, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's records of the page cache cannot be moved out of the way."""
    for name in (DROP_CACHES, f"{SLABS}/dentry/shrink", f"{SLABS}/:0000192/shrink"):
        fake.write(name, "")
    tried = refuse_until(
        lambda: all(each.read_text() for each in fake.path(SLABS).glob("*/shrink")),
        errno.ENOMEM, clock, monkeypatch,
    )  # fmt: skip
    fake.write("/sys/kernel/kexec_crash_size", "0")
    assert reservation.resize(fake.host, 64 * MIB) == 64 * MIB
    assert fake.path(DROP_CACHES).read_text() == "3"
    assert fake.path(f"{SLABS}/dentry/shrink").read_text() == "1"
    assert tried[-2] < reservation.BEFORE_DROPPING <= tried[-1]


def test_caches_are_dropped_before_slabs_are_shrunk(
    fake: FakeHost, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slab that still has records keeps its memory. One with two names is shrunk once."""
    fake.write(DROP_CACHES, "")
    fake.write(f"{SLABS}/:0000192/shrink", "")
    fake.path(f"{SLABS}/dentry").symlink_to(":0000192")
    order = list[str]()
    write_one = Host.write

    def note(self: Host, name: str | Path, value: str) -> None:
        order.append(Path(name).name)
        write_one(self, name, value)

    monkeypatch.setattr(Host, "write", note)
    refuse_until(lambda: "shrink" in order, errno.ENOMEM, clock, monkeypatch)
    reservation.resize(fake.host, 64 * MIB)
    assert [name for name in order if "size" not in name] == ["drop_caches", "shrink"]


def test_caches_are_kept_if_another_program_is_in_the_way(
    fake: FakeHost, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.write(DROP_CACHES, "")
    refuse_until(lambda: False, errno.EBUSY, clock, monkeypatch)
    with pytest.raises(TinykdumpError, match="another program is changing it"):
        reservation.resize(fake.host, 64 * MIB)
    assert clock.now > reservation.BEFORE_DROPPING
    assert fake.path(DROP_CACHES).read_text() == ""


@dataclass
class Growing:
    """A kernel with CONFIG_KEXEC_CMA: a region can grow only from 0."""

    fake: FakeHost
    clock: Clock
    most: int = 64 * MIB  # the largest size, in bytes
    written: list[int] = field(default_factory=list)

    def set(self, size: int) -> None:
        self.fake.write("/sys/kernel/kexec/crash_size", str(size))

    def write(self, _descriptor: int, data: bytes) -> int:
        size, now = int(data), reservation.read(self.fake.host).size
        self.written.append(size)
        if size > now > 0:
            raise OSError(errno.EINVAL, "not from 0")
        if size > now and size > self.most:
            raise OSError(errno.ENOMEM, "no")
        self.set(size)
        return len(data)


@pytest.fixture
def growing(fake: FakeHost, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Growing:
    for path, text in CMA.items():
        fake.write(path, text)
    kernel = Growing(fake, clock)
    monkeypatch.setattr("os.write", kernel.write)
    return kernel


@pytest.mark.parametrize(
    ("before", "wanted", "written"),
    [
        (0, 64, [64]),
        (32, 64, [0, 64]),  # the kernel grows it only from 0
        (64, 32, [32]),
        (64, 64, [64]),
        (64, 0, [0]),
    ],
)
def test_a_region_grows_from_0(
    growing: Growing, before: int, wanted: int, written: list[int]
) -> None:
    growing.set(before * MIB)
    assert reservation.resize(growing.fake.host, wanted * MIB) == wanted * MIB
    assert growing.written == [size * MIB for size in written]
    assert not growing.clock.pauses


@pytest.mark.parametrize("most", [32, 16])
def test_if_growing_fails_the_old_size_is_restored(growing: Growing, most: int) -> None:
    """It is 0 if the old size is not available again. All tries end within the time limit."""
    growing.set(32 * MIB)
    growing.most = most * MIB
    with pytest.raises(TinykdumpError, match="not changed to 64 MiB: not enough memory"):
        reservation.resize(growing.fake.host, 64 * MIB)
    assert reservation.read(growing.fake.host).size == (32 * MIB if most == 32 else 0)
    assert growing.written[0] == 0
    assert growing.written[-1] == 32 * MIB
    assert sum(growing.clock.pauses) <= reservation.PATIENCE


def test_a_reservation_made_at_boot_is_not_freed_to_grow_it(growing: Growing) -> None:
    growing.fake.write("/sys/kernel/kexec/crash_size_max", "0")
    growing.set(32 * MIB)
    with pytest.raises(TinykdumpError, match="the kernel can only make it smaller"):
        reservation.resize(growing.fake.host, 64 * MIB)
    assert growing.written == [64 * MIB]
