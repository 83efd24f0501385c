# SPDX-License-Identifier: GPL-2.0-or-later
import errno
import os

import pytest

from tests.fakehost import FakeHost
from tinykdump import reservation
from tinykdump.errors import TinykdumpError
from tinykdump.memory import MIB, Need, Row
from tinykdump.reservation import Reservation

OLD = {"/sys/kernel/kexec_crash_size": "0\n", "/sys/kernel/kexec_crash_loaded": "0\n"}
NEW = {"/sys/kernel/kexec/crash_size": "1048576\n", "/sys/kernel/kexec/crash_loaded": "1\n"}
CMA = {**NEW, "/sys/kernel/kexec/crash_size_max": "268435456\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (OLD, Reservation(0, 0, False)),
        (NEW, Reservation(MIB, 0, True)),
        ({**OLD, **NEW}, Reservation(MIB, 0, True)),
        (CMA, Reservation(MIB, 256 * MIB, True)),
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
def test_no_way_to_the_goal(now: Reservation, wanted: Need, says: str) -> None:
    with pytest.raises(TinykdumpError, match=rf"^{says}.*\(add crashkernel=\d+M "):
        reservation.goal(now, wanted)


@pytest.mark.parametrize("path", ["/sys/kernel/kexec_crash_size", "/sys/kernel/kexec/crash_size"])
def test_resize(fake: FakeHost, path: str) -> None:
    fake.write(path, "")
    assert reservation.resize(fake.host, 64 * MIB) == 64 * MIB
    assert fake.path(path).read_text() == str(64 * MIB)


# With these another try can succeed.
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
def test_a_kernel_that_refuses(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    def refuse(_descriptor: int, _data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    pauses = list[float]()
    monkeypatch.setattr("os.write", refuse)
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr("os.sync", lambda: None)
    with pytest.raises(TinykdumpError, match=rf"was not changed to 64 MiB: {says}"):
        reservation.resize(fake.host, 64 * MIB)
    assert bool(pauses) == (number in PASSES)


@pytest.mark.parametrize("failures", [1, 5])
def test_growing_is_tried_again(
    fake: FakeHost, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    write, pauses, left = os.write, list[float](), [failures]
    synced = list[bool]()
    monkeypatch.setattr("os.sync", lambda: synced.append(True))

    def refuse_at_first(descriptor: int, data: bytes) -> int:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ENOMEM, "no")
        return write(descriptor, data)

    monkeypatch.setattr("os.write", refuse_at_first)
    monkeypatch.setattr("time.sleep", pauses.append)
    fake.write("/sys/kernel/kexec_crash_size", "")
    assert reservation.resize(fake.host, 64 * MIB) == 64 * MIB
    assert pauses == [0.1, 0.2, 0.4, 0.8][:failures]
    assert len(synced) == (failures == 5)  # the last hope
