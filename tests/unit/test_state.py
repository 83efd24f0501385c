# SPDX-License-Identifier: GPL-2.0-or-later
"""The images of older versions are moved to their present place; the keys stay."""

import json
from pathlib import Path

import pytest

from tests.fakehost import KVER, STATE, FakeHost, bzimage, unified
from tinykdump import cli, keys, load, state
from tinykdump.errors import TinykdumpError

OLD = f"{state.STATE}/{KVER}"
NOTES = (f"{OLD}/manifest.json", str(state.LOADED))


@pytest.fixture
def machine(fake: FakeHost, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """A machine whose image, stored kernel image and keys are where older versions kept them.

    The image is loaded. kexec fails, because a directory tree has none.
    """

    def refuse(*_words: str) -> None:
        raise TinykdumpError("kexec failed", "see dmesg")

    monkeypatch.setattr(load, "_kexec", refuse)
    monkeypatch.setenv("TINYKDUMP_ROOT", str(fake.root))
    keys.machine_key(fake.host, create=True)
    fake.write(f"/lib/modules/{KVER}/vmlinuz", unified(linux=bzimage(release=KVER)))
    assert cli.main(["-b"]) == 0
    fake.path(STATE).rename(fake.path(OLD))
    fake.path(str(state.IMAGES)).rmdir()
    made = json.loads(fake.path(NOTES[0]).read_text())
    made["kernel"] = made["kernel"].replace(STATE, OLD)
    for note in NOTES:
        fake.write(note, json.dumps(made, indent=2))
    fake.write("/sys/kernel/kexec_crash_loaded", "1\n")
    return fake


def moved(machine: FakeHost) -> None:
    """Check that everything was moved, and that the loaded image can be loaded again."""
    image = state.read_manifest(machine.host, KVER)
    assert image is not None
    assert Path(image.kernel).parent == Path(STATE)
    assert load.ours(machine.host) == image
    load.sweep(machine.host)
    state.verify(machine.host, image)
    assert not machine.path(OLD).exists()


def test_images_are_moved_away_from_the_keys(
    machine: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.write(f"{state.STATE}/keys/x.img", b"not ours")
    machine.path(f"{state.STATE}/lost+found").mkdir()
    keys = machine.snapshot(f"{state.STATE}/keys")
    images = {path.name: path.stat().st_ino for path in machine.path(OLD).glob("*.img")}
    capfd.readouterr()
    assert cli.main(["unload"]) == 1  # it changes nothing else
    moved(machine)
    assert {path.name: path.stat().st_ino for path in machine.path(STATE).glob("*.img")} == images
    assert len(images) == 2
    assert machine.snapshot(f"{state.STATE}/keys") == keys
    assert machine.path(f"{state.STATE}/lost+found").is_dir()


def test_moved_images_are_not_rebuilt(machine: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in machine.path(OLD).glob("*.img")}
    key = machine.snapshot(f"{state.STATE}/keys/private-keys-v1.d")
    cli.main(["-l"])
    assert {path.name: path.stat().st_mtime_ns for path in machine.path(STATE).iterdir()
            if path.suffix == ".img"} == before  # fmt: skip
    assert machine.snapshot(f"{state.STATE}/keys/private-keys-v1.d") == key
    assert "existing one" not in capfd.readouterr().err


@pytest.mark.parametrize("after", range(9))
def test_an_interrupted_move_is_continued(
    machine: FakeHost, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    steps = 0
    for name in ("replace", "rmdir", "mkdir"):
        step = getattr(Path, name)

        def killed(path: Path, *words: object, step: object = step, **more: object) -> object:
            nonlocal steps
            if machine.root in path.parents:
                steps += 1
                if steps > after:
                    raise KeyboardInterrupt
            return step(path, *words, **more)  # type: ignore[operator]

        monkeypatch.setattr(Path, name, killed)
    with pytest.raises(KeyboardInterrupt), state.lock(machine.host):
        raise KeyboardInterrupt  # after the last step
    monkeypatch.undo()
    with state.lock(machine.host):
        pass
    moved(machine)


def test_a_kernel_may_have_the_name_of_the_keys_directory(fake: FakeHost) -> None:
    """Its image has another directory."""
    assert state.image_directory("keys") == state.IMAGES / "keys"
    with state.lock(fake.host):
        assert not fake.path(str(state.STATE)).exists()
