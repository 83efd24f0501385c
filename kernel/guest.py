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


@dataclass(frozen=True)
class Scenario:
    name: str
    # tests/kernel/guest/SCRIPT.sh is what runs in the guest
    script: str
    append: str = ""
    memory: str = "1G"
    # Lines of the console that have to be there, as regular expressions
    expect: tuple[str, ...] = ()
    # Longer than it takes under emulation on a busy machine
    seconds: int = 600


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


def make_initramfs(tree: Path, kernel: Path, directory: Path) -> Path:
    """The image of the first system; it carries the crash kernel and its image along."""
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
    kexec = _program("kexec")
    for file in (kexec, *_libraries(str(kexec))):
        _copy(file, first, str(file))
    _copy(kernel, first, "boot/vmlinuz")
    _copy(directory / "crash.img", first, "boot/crash.img")
    _pack(first, directory / "first.img")
    return directory / "first.img"


def boot(scenario: Scenario, kernel: Path, initramfs: Path, log: Path) -> Outcome:
    """Always ends: the guest switches itself off, a panic resets it, and time is limited."""
    argv = [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2",
        "-m", scenario.memory, "-display", "none", "-no-reboot", "-nodefaults",
        "-serial", f"file:{log}",
        "-kernel", str(kernel), "-initrd", str(initramfs),
        "-append", f"{APPEND} test={scenario.script} {scenario.append}".strip(),
    ]  # fmt: skip
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    try:
        subprocess.run(argv, check=True, timeout=scenario.seconds)
    except FileNotFoundError as error:
        raise KernelError("qemu-system-x86_64 is not installed") from error
    except subprocess.TimeoutExpired:
        # The console tells how far it came.
        pass
    console = log.read_text(errors="replace") if log.exists() else ""
    return judge(scenario, console)
