# SPDX-License-Identifier: GPL-2.0-or-later
"""The supervisor, and the final action."""

import shutil
from collections.abc import Sequence

import pytest

from tests.crash.world import CRASH_SIDE, Crash

STAGES = ("load_modules", "mount_pstore", "wait_for_stick", "mount_stick", "run_script",
          "open_dump_directory", "teach_makedumpfile", "save_log", "save_memory", "publish",
          "remove_old_dumps")  # fmt: skip

# src/crash/init, without the lines that replace the functions of a test.
INIT = (CRASH_SIDE / "init").read_text().replace("/etc/tinykdump.conf", "/dev/null")
INIT = INIT.replace(". /lib/tinykdump.sh", "").replace("set_paths\n", "")
INIT = INIT.replace("mount_kernel_interfaces\n", "").replace("leave_stick 60", "leave_stick 2")


def init(crash: Crash, script: str, real: Sequence[str] = ()) -> str:
    """Run src/crash/init with the stages in ``real``, and with those that ``script`` defines;
    returns the log."""
    nothing = "".join(f"{stage}() {{ :; }}\n" for stage in STAGES if stage not in real)
    _, log = crash.run(f"{nothing}\n{script}\n{INIT}")
    return log


@pytest.mark.parametrize(
    ("script", "outcome", "says"),
    [
        ("publish() { touch $TMP/saved; }", "saved", ""),
        ("run_script() { die nothing works; }", "failed", "failed: nothing works\n"),
        ("run_script() { exit 3; }", "failed", "failed: the dump ended with status 3\n"),
        ("run_script() { set -u; : $unset; }", "failed", "failed: the dump ended with status"),
        ("run_script() { : >/none/x; }", "failed", "can't create /none/x: nonexistent directory\n"),
        ("run_script() { exec sh -c 'kill -9 $$'; }", "failed", "failed: the dump ended with"),
        # No progress: a write hangs, or something else.
        ("save_memory() { command sleep 50; }", "failed", "failed: no progress for "),
        (
            "save_memory() { trap '' TERM INT; while :; do command sleep 1; done; }",
            "failed",
            "failed: no pro",
        ),
    ],
)
def test_every_path_ends_in_the_final_action(
    crash: Crash, script: str, outcome: str, says: str
) -> None:
    log = init(crash, script)
    assert says in log
    assert log.count("failed: ") == (outcome == "failed")
    assert f"dump {outcome}; final action: reboot\n" in log
    assert log.endswith("ACTION reboot -n -f\n")
    assert f"UMOUNT {crash.stick}\n" in log


# The first device is pulled out while the memory is saved; the next one has another name.
PULL = """
findfs() { cat {top}/sticks 2>/dev/null; }
hide_other_disks() { :; }
is_behind_usb() { :; }
warn_of_others() { :; }
pull() {
    rm {top}/sys/class/block/sdx
    {next}
    die 'writing x: I/O error'
}
save_memory() { [ "$DEVICE" = /dev/sdy ] || pull; }
publish() { touch $TMP/saved; }
"""


def pulled_out(crash: Crash, then: str) -> str:
    """The log of a dump whose stick is pulled out; ``then`` is a command."""
    (crash.top / "sticks").write_text("/dev/sdx\n")
    blocks = crash.top / "sys/class/block"
    blocks.mkdir(parents=True)
    (blocks / "sdx").touch()
    text = PULL.replace("{top}", str(crash.top)).replace("{next}", then)
    return init(crash, text, real=("wait_for_stick",))


def test_a_stick_that_is_pulled_out_and_comes_back(crash: Crash) -> None:
    log = pulled_out(crash, f"echo /dev/sdy >{crash.top}/sticks")
    assert "the stick was pulled out: writing x: I/O error\n" in log
    assert "found the stick: /dev/sdy\n" in log
    assert "failed" not in log
    assert "dump saved; final action: reboot\n" in log


def test_a_stick_that_is_pulled_out_for_good(crash: Crash) -> None:
    log = pulled_out(crash, f"rm {crash.top}/sticks")
    assert "failed: no stick LABEL=TINYKDUMP within 1 s after it was pulled out\n" in log
    assert log.endswith("ACTION reboot -n -f\n")


def test_a_stick_with_a_loose_contact(crash: Crash) -> None:
    """It is not waited for forever."""
    log = pulled_out(crash, f"touch {crash.top}/sys/class/block/sdx; (sleep 1; rm "
                     f"{crash.top}/sys/class/block/sdx) &")  # fmt: skip
    assert log.count("the stick was pulled out: writing x") == 5
    assert "failed: the stick was pulled out, or could not be used, 5 times\n" in log


# Two sticks with the label, as device nodes; the first one is of no use.
TWO = """
findfs() {{ for node in "$DEV"/sd*; do [ -e "$node" ] && echo "$node" && return; done; false; }}
hide_other_disks() {{ :; }}
is_behind_usb() {{ :; }}
is_first() {{ [ "$DEVICE" = {dev}/sdx ]; }}
mount() {{ :; }}
save() {{ :; }}
STALL=9 # to see that it is not pulled out takes 2 s
open_dump_directory() {{ :; }}
publish() {{ touch $TMP/saved; }}
{unusable}
"""


@pytest.mark.parametrize(
    ("unusable", "says"),
    [
        ("mount() { ! is_first; }", "cannot mount {dev}/sdx with any file system of this image: "),
        ("open_dump_directory() { ! is_first || leave_unusable 'it is write-protected'; }",
         "it is write-protected"),
        ("save() { CAUSE=full FAILURE=full; ! is_first; }", "could not save the memory: full"),
    ],
)  # fmt: skip
def test_the_second_stick_is_taken_if_the_first_cannot_be_used(
    crash: Crash, unusable: str, says: str
) -> None:
    dev = crash.top / "dev"
    for name in ("sdx", "sdy"):
        (dev / name).touch()
        (crash.top / "sys/class/block" / name).mkdir(parents=True)
    real = ("wait_for_stick", "mount_stick", "save_memory")
    log = init(crash, TWO.format(dev=dev, unusable=unusable), real=real)
    assert f"{says.format(dev=dev)}" in log
    assert f"; trying {dev}/sdy\n" in log
    assert f"found the stick: {dev}/sdy\n" in log
    assert "failed" not in log
    assert "dump saved; final action: reboot\n" in log


@pytest.mark.parametrize("action", ["poweroff", "halt"])
def test_other_final_actions(crash: Crash, action: str) -> None:
    log = init(crash, f"FINAL_ACTION={action}")
    assert f"dump failed; final action: {action}\n" in log
    assert log.endswith(f"ACTION {action} -n -f\n")


def test_a_stick_that_hangs_does_not_prevent_the_final_action(crash: Crash) -> None:
    hang = "command sleep 50"
    log = init(crash, f"save_log() {{ {hang}; }}; umount() {{ {hang}; }}")
    assert log.count("failed: no progress for ") == 2
    assert log.endswith("ACTION reboot -n -f\n")


@pytest.mark.parametrize("action", ["reboot", "poweroff"])
def test_an_action_that_hangs_ends_in_a_reboot(crash: Crash, action: str) -> None:
    """A driver waits for its device."""
    wait = 'sleep() { [ "$1" != 30 ] || set -- 1; command sleep "$1"; }'
    init(crash, f"FINAL_ACTION={action}; {wait}; {action}() {{ command sleep 3; }}")
    assert (crash.top / "sysrq").read_text() == "b\n"


@pytest.mark.parametrize(("action", "key"), [("reboot", "b"), ("poweroff", "o"), ("halt", "")])
def test_a_busybox_without_the_final_actions(crash: Crash, action: str, key: str) -> None:
    """As SUSE's. A halted machine does nothing any more, which ends here with the sleep."""
    sleeps = (
        'sleep() { case $1 in 30 | 3600) say "SLEEP $1"; false ;; *) command sleep 0.1 ;; esac; }'
    )
    missing = f"{action}() {{ echo '{action}: applet not found' >&2; return 127; }}"
    log = init(crash, f"FINAL_ACTION={action}; {sleeps}; {missing}")
    assert f"tinykdump: {action}: applet not found\n" in log
    assert ("SLEEP 3600" in log) == (action == "halt")
    pressed = crash.top / "sysrq"
    assert (pressed.read_text() if pressed.exists() else "") == key + "\n" * bool(key)


def test_a_makedumpfile_that_hangs_is_killed_and_the_memory_is_copied(crash: Crash) -> None:
    """Simulated: makedumpfile never ends, at any level."""
    applets = (crash.top / "bin").resolve()
    (crash.top / "bin").unlink()
    shutil.copytree(applets, crash.top / "bin", symlinks=True)
    hang = crash.top / "bin/makedumpfile"
    hang.write_text("#!/bin/sh\nwhile :; do sleep 1; done\n")
    hang.chmod(0o755)
    (crash.top / "core").write_bytes(b"memory")
    script = f"VMCORE={crash.top}/core; open_dump_directory() {{ echo $DUMP >$TMP/dump; }}"
    log = init(crash, script, real=("save_log", "save_memory"))
    assert log.count("killed makedumpfile: no progress for ") == 3
    assert "could not save the log: " in log
    assert "could not save the memory at level 31: " in log
    assert "trying level 1" in log
    assert "copying it" in log
    assert (crash.dump / "vmcore.000").read_bytes() == b"memory"
    assert not list(crash.dump.glob("vmcore.flat*"))


def test_a_makedumpfile_that_cannot_be_killed_does_not_prevent_the_final_action(
    crash: Crash,
) -> None:
    """Simulated: makedumpfile waits for the disk, too, so SIGKILL has no effect."""
    hang = "save_memory() { command sleep 50; }; pidof() { echo 999999; }; kill() { :; }"
    log = init(crash, hang)
    assert log.count("killed makedumpfile: no progress for ") == 1
    assert log.count("failed: no progress for ") == 1
    assert log.endswith("ACTION reboot -n -f\n")


def test_the_log_is_saved_before_the_script_runs(crash: Crash) -> None:
    """A script that takes all memory can end everything that comes after it."""
    stages = "open_dump_directory() { :; }; read_log() { echo log; }; run_script() { exit 1; }"
    init(crash, stages, real=("save_log",))
    assert (crash.dump / "dmesg.txt.000").read_text() == "log\n"


@pytest.mark.parametrize("saved", [False, True])
def test_the_crash_kernels_log_is_saved_after_a_failure(crash: Crash, saved: bool) -> None:
    publish = "publish() { touch $TMP/saved; }" if saved else "publish() { die no; }"
    init(crash, f"dmesg() {{ echo log; }}; echo $DUMP >$TMP/dump; {publish}")
    assert (crash.dump / "crash-kernel.txt.000").exists() is not saved
