"""Boot a built kernel in QEMU with a script in its initramfs, and read what it says."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernel.run import KernelError, output

SCRIPTS = Path(__file__).resolve().parent.parent / "tests" / "kernel" / "guest"
# The check of the timer fails at times when the host is too busy to emulate it in step.
# Only warnings are for the console, where the guest's own lines are read.
APPEND = "console=ttyS0 panic=-1 no_timer_check loglevel=5"
SELFTESTS = ("kselftest/ktap_helpers.sh", "kexec/test_crash_resize.sh")
# What the scripts load by name; with what these depend on, they are in the image.
MODULES = ("virtio_pci", "virtio_blk", "ext4", "fuse")


@dataclass(frozen=True)
class Scenario:
    name: str
    # tests/kernel/guest/SCRIPT.sh is what runs in the guest
    script: str
    append: str = ""
    memory: str = "1G"
    # MiB of an empty ext4 on /dev/vda; 0 for no disk
    disk: int = 0
    # Lines of the console that have to be there, as regular expressions
    expect: tuple[str, ...] = ()
    # Longer than it takes under emulation on a busy machine
    seconds: int = 600
    # QEMU's name for it, and what to switch off
    cpu: str = "max"


@dataclass(frozen=True)
class Outcome:
    scenario: Scenario
    failures: tuple[str, ...]
    figures: Mapping[str, str]


def judge(scenario: Scenario, console: str) -> Outcome:
    """What a console says about a scenario. Pure."""
    text = console.replace("\r", "")
    failures = re.findall(r"^(?:not ok|Bail out!).*$", text, re.MULTILINE)
    failures += re.findall(r"^.*(?:WARNING: |BUG: |Oops: ).*$", text, re.MULTILINE)
    failures += [
        f"the console does not have: {pattern}"
        for pattern in scenario.expect
        if not re.search(pattern, text, re.MULTILINE)
    ]
    exits = re.findall(r"^GUEST-EXIT (\d+)$", text, re.MULTILINE)
    if not exits:
        failures.append("the machine was lost: it did not say how the script ended")
    elif exits != ["0"]:
        failures.append(f"the script ended with {exits[-1]}")
    figures = dict(re.findall(r"^FIGURE (\S+) (.*)$", text, re.MULTILINE))
    return Outcome(scenario, tuple(failures), figures)


def _libraries(program: str) -> list[Path]:
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", output(["ldd", program]))]


def _program(name: str) -> Path:
    found = shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not found:
        raise KernelError(f"{name} is not installed", "python3 -m kernel deps lists what has to be")
    return Path(found)


def _copy(source: Path, root: Path, target: str) -> None:
    path = root / target.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, path)


def _pack(root: Path, image: Path) -> None:
    files = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    with image.open("wb") as stream:
        subprocess.run(
            ["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0"],
            cwd=root,
            input=files.encode(),
            stdout=stream,
            check=True,
        )


def module_files(dependencies: str, names: tuple[str, ...]) -> list[str]:
    """The files of modules.dep that these modules need; what is built in has none. Pure."""
    lines = (line.split(":", 1) for line in dependencies.splitlines())
    needs = {file: [file, *others.split()] for file, others in lines}
    return sorted({needed for file in needs if Path(file).stem in names for needed in needs[file]})


def _add_modules(kernel: Path, root: Path) -> None:
    (modules,) = (kernel / "lib/modules").iterdir()
    listing = modules / "modules.dep"
    for file in [listing.name, *module_files(listing.read_text(), MODULES)]:
        _copy(modules / file, root, f"lib/modules/{modules.name}/{file}")


def _add_helpers(root: Path) -> None:
    """What busybox cannot do, in C; static, as the image has no libraries for it."""
    (root / "bin").mkdir(parents=True, exist_ok=True)
    for source in sorted(SCRIPTS.glob("*.c")):
        warnings = ["-Wall", "-Wextra", "-Werror"]
        output(["gcc", "-static", "-O2", *warnings, "-o", root / "bin" / source.stem, source])


def make_initramfs(tree: Path, kernel: Path, directory: Path) -> Path:
    """The image of the first system; it carries the crash kernel and its image along.

    `kernel` is the directory of a finished build.
    """
    shutil.rmtree(directory, ignore_errors=True)
    crash, first = directory / "crash", directory / "first"
    busybox = _program("busybox")
    _copy(busybox, crash, "bin/busybox")
    _copy(SCRIPTS / "crash-init", crash, "init")
    _pack(crash, directory / "crash.img")

    _copy(busybox, first, "bin/busybox")
    _copy(SCRIPTS / "init", first, "init")
    for script in sorted(SCRIPTS.glob("*.sh")):
        _copy(script, first, f"guest/{script.name}")
    for test in SELFTESTS:
        source = tree / "tools/testing/selftests" / test
        # A kernel without the series does not have its tests.
        if source.exists():
            _copy(source, first, f"selftests/{test}")
    _add_modules(kernel, first)
    _add_helpers(first)
    kexec = _program("kexec")
    for file in (kexec, *_libraries(str(kexec))):
        _copy(file, first, str(file))
    _copy(kernel / "vmlinuz", first, "boot/vmlinuz")
    _copy(directory / "crash.img", first, "boot/crash.img")
    _pack(first, directory / "first.img")
    return directory / "first.img"


def _make_disk(image: Path, mebibytes: int) -> list[str]:
    """A fresh file system, as QEMU's arguments."""
    image.unlink(missing_ok=True)
    output(["mke2fs", "-q", "-t", "ext4", image, f"{mebibytes}M"])
    # What is on it is thrown away, so it need not reach the host's disk.
    return ["-drive", f"file={image},format=raw,if=virtio,cache=unsafe"]


def boot(scenario: Scenario, kernel: Path, initramfs: Path, log: Path) -> Outcome:
    """Always ends: the guest switches itself off, a panic resets it, and time is limited."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    image = log.with_suffix(".disk")
    argv = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", scenario.cpu, "-smp", "2",
        "-m", scenario.memory, "-display", "none", "-no-reboot", "-nodefaults",
        "-serial", f"file:{log}",
        "-kernel", str(kernel), "-initrd", str(initramfs),
        "-append", f"{APPEND} test={scenario.script} {scenario.append}".strip(),
        *(_make_disk(image, scenario.disk) if scenario.disk else []),
    ]  # fmt: skip
    try:
        subprocess.run(argv, check=True, timeout=scenario.seconds)
    except FileNotFoundError as error:
        raise KernelError("qemu-system-x86_64 is not installed") from error
    except subprocess.TimeoutExpired:
        # The console tells how far it came.
        pass
    finally:
        image.unlink(missing_ok=True)
    console = log.read_text(errors="replace") if log.exists() else ""
    return judge(scenario, console)
