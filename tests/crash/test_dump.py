# SPDX-License-Identifier: GPL-2.0-or-later
"""The stages on the stick: the script, the directory, the log and the memory."""

import hashlib
import re
import shlex
import struct
import time

import pytest

from tests.crash.world import BLOCK, MACHINE, OPEN, TIME, Crash
from tests.keyring import Keyring
from tinykdump import keys as keys_of_tinykdump
from tinykdump import parts
from tinykdump.crashlog import CrashLog
from tinykdump.dump import SUMS, memory_seconds, parse_sums
from tinykdump.image.makedumpfile import renamed
from tinykdump.parts import look

# --- the clock --------------------------------------------------------------------------


# The time of the kernel, and what busybox's date makes of it.
CLOCK = """\
date() {
	case $1 in
	-u) echo "2026-07-01 14:00:00" ;;
	-s) say "SET $2" ;;
	*) TZ="$TZ" command date "$@" ;;
	esac
}
"""


@pytest.mark.parametrize(
    ("zone", "says"),
    [
        ("CET-1CEST,M3.5.0,M10.5.0/3", "SET @1782907200"),  # 12:00 UTC: it is summer there
        ("<+0545>-5:45", "SET @1782893700"),
        ("", ""),
    ],
)
def test_a_hardware_clock_in_local_time(crash: Crash, zone: str, says: str) -> None:
    _, log = crash.run(f"{CLOCK} CLOCK_ZONE='{zone}'; correct_clock")
    assert log == (f"<5>tinykdump: {says}\n" if says else "")


def test_a_clock_that_cannot_be_set(crash: Crash) -> None:
    _, log = crash.run("date() { echo no >&2; return 1; }; CLOCK_ZONE=X-1; correct_clock")
    assert log == "<5>tinykdump: cannot correct the clock: no\n"


# --- the user's script ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo hello from $1", "hello from {stick}\n"),
        ("exit 7", "the script ended with status 7; going on\n"),
        ("exec sleep 30", "the script ended with status 143; going on\n"),
        ("trap '' TERM; while :; do sleep 1; done", "the script ended with status 137; going on\n"),
        ("cat; pwd", "/\n"),
    ],
)
def test_the_script_never_ends_the_dump(crash: Crash, body: str, says: str) -> None:
    script = crash.top / "script"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    status, log = crash.run(f"echo 2 >$TMP/patience; SCRIPT={script}; run_script; say went on")
    assert status == 0, log
    assert says.format(stick=crash.stick) in log
    assert log.endswith("went on\n")


@pytest.mark.parametrize(("patience", "during"), [(1, 11), (10, 11), (11, 11), (99, 99)])
def test_the_script_may_take_its_time(crash: Crash, patience: int, during: int) -> None:
    """And two seconds more, if it has to be killed. What it took is over before the dump has to
    make progress again."""
    script = crash.top / "script"
    patience_file = crash.top / "tmp/patience"
    script.write_text(f"#!/bin/sh\ncat {patience_file}\nexit 1\n")
    script.chmod(0o755)
    look = 'say() { echo "$(cat $TMP/patience) $(wc -l <$TMP/progress)"; }; tick'
    _, log = crash.run(f"echo {patience} >$TMP/patience; SCRIPT={script}; {look}; run_script")
    assert log.splitlines() == [f"{patience} 1", str(during), f"{patience} 3"]


def test_no_process_of_the_script_stays(crash: Crash) -> None:
    """Not even a process in the background that ignores SIGTERM."""
    script = crash.top / "script"
    script.write_text("#!/bin/sh\n(trap '' TERM; sleep 2; echo late >$1/late) &\nsleep 30\n")
    script.chmod(0o755)
    crash.run(f"echo 2 >$TMP/patience; SCRIPT={script}; run_script; command sleep 2")
    assert not (crash.stick / "late").exists()


# --- the directory of the dump ----------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "name"),
    [
        ([], TIME),
        ([TIME], f"{TIME}-1"),
        ([f"{TIME}.partial"], f"{TIME}-1"),
        ([TIME, f"{TIME}-1.partial"], f"{TIME}-2"),
        # A number that is free again would be that of an old dump.
        ([f"{TIME}-9", f"{TIME}-10.partial"], f"{TIME}-11"),
        ([f"{TIME}-08", f"{TIME}-1x", f"{TIME}-99999999999999999999"], TIME),
    ],
)
def test_nothing_is_overwritten(crash: Crash, there: list[str], name: str) -> None:
    for old in there:
        (crash.dumps / old).mkdir(parents=True)
    status, log = crash.run(OPEN)
    assert status == 0, log
    assert f"DUMP tinykdump/{MACHINE}/{name}.partial\n" in log
    assert (crash.dumps / f"{name}.partial/SHA256SUMS").read_bytes() == b""


@pytest.mark.parametrize("link", ["tinykdump", f"tinykdump/{MACHINE}"])
def test_a_link_on_the_stick_is_not_followed(crash: Crash, link: str) -> None:
    elsewhere = crash.top / "elsewhere"
    elsewhere.mkdir()
    (crash.stick / link).parent.mkdir(exist_ok=True)
    (crash.stick / link).symlink_to(elsewhere)
    status, log = crash.run(OPEN)
    assert status == 1
    assert "failed: the stick has a link where the dumps should be" in log
    assert list(elsewhere.iterdir()) == []


def test_a_stick_that_cannot_be_written(read_only_stick: Crash) -> None:
    status, log = read_only_stick.run(OPEN)
    assert status == 1
    assert "failed: cannot write to the stick: mkdir: " in log


def test_a_stick_on_which_no_file_can_be_made(crash: Crash) -> None:
    """It takes directories only. A failed redirection would end the shell without a message."""
    tmpfs = f"mount -t tmpfs -o nr_inodes=4 none {crash.stick}"
    status, log = crash.run(f"{tmpfs} && {OPEN}")
    assert status == 1
    assert "failed: cannot write to the stick: dd: " in log


def test_publish(crash: Crash) -> None:
    status, log = crash.run(f"{OPEN}; publish; [ -e $TMP/saved ]")
    assert status == 0, log
    assert log.endswith(f"saved as tinykdump/{MACHINE}/{TIME}\n")
    assert [path.name for path in crash.dumps.iterdir()] == [TIME]


def test_the_dump_tells_where_the_time_went(crash: Crash) -> None:
    """A slow stick can be told from a slow kernel: here a sync takes two seconds."""
    slow = """
        start_sync() { usleep 2000000 & syncing=$!; }
        read_memory() { head -c 1000000 /dev/zero; }
    """
    up = "stage 'crash kernel 6.12 is up, image of tinykdump 1'"
    earlier = "echo 900 >$TMP/waits"  # of the log, or of a try before the stick was pulled out
    status, log = crash.run(f"{slow} {up}; {OPEN}; {earlier}; save_memory; publish")
    assert status == 0, log
    text = (crash.dumps / TIME / "STAGES").read_text()
    times, texts = zip(*(line[1:].split(" s] ") for line in text.splitlines()), strict=True)
    assert texts[:2] == ("the crash kernel is up", "saving the memory")
    assert memory_seconds(text) == float(times[2]) - float(times[1])
    found = re.fullmatch(
        r"the memory is written; waited ([0-9.]+) s of that for the stick", texts[2]
    )
    assert found
    # Less than two seconds: meanwhile, the sum is computed.
    assert 0.5 < float(found[1]) <= float(times[2]) - float(times[1])


def test_the_log_tells_how_fast_it_was(crash: Crash) -> None:
    """For the estimate of the next dump."""
    status, log = crash.run(
        "read_memory() { head -c 3000000 /dev/urandom; };"
        f"{OPEN}; stage 'saving the memory'; save vmcore.flat read_memory; publish"
    )
    assert status == 0, log
    lines = [line.removeprefix("<5>") for line in log.splitlines()]
    raw = "\n".join(f"<13>[{at:5}.000000] {line}" for at, line in enumerate(lines))
    saved = re.sub(r"\[[0-9.]+ s\] saved", "[1000000000.00 s] saved", raw)
    assert 0 < CrashLog(saved, is_whole=True).rate < 1
    assert re.search(r"the dump takes [3-4] MiB$", raw, re.MULTILINE)


@pytest.mark.parametrize(
    ("keep", "new", "left"),
    [
        (0, "3Z", ["1Z", "2Z", "2Z-1", "3Z"]),
        (4, "3Z", ["1Z", "2Z", "2Z-1", "3Z"]),
        (3, "3Z", ["2Z", "2Z-1", "3Z"]),
        (1, "3Z", ["3Z"]),
        # The clock was ahead when the others were saved.
        (2, "1Z", ["1Z", "3Z"]),
        (1, "1Z", ["1Z"]),
    ],
)
def test_no_more_than_keep_dumps_stay(crash: Crash, keep: int, new: str, left: list[str]) -> None:
    others = ["0Z.partial", "0Z-incomplete", "notes"]
    for name in ("1Z", "2Z", "2Z-1", "3Z"):
        (crash.dumps / name).mkdir(parents=True)
        (crash.dumps / name / "SHA256SUMS").touch()
    for name in others:
        (crash.dumps / name).mkdir()
    neighbour = crash.stick / "tinykdump/another/0Z"
    neighbour.mkdir(parents=True)
    (neighbour / "SHA256SUMS").touch()
    status, _ = crash.run(f"KEEP={keep} FINAL_NAME={crash.dumps}/{new}; remove_old_dumps")
    assert status == 0
    assert sorted(path.name for path in crash.dumps.iterdir()) == sorted([*others, *left])
    assert neighbour.exists()


# --- writing ----------------------------------------------------------------------------

SAVE = 'save x produce || say "FAILED $CAUSE: $FAILURE"; say went on'


@pytest.mark.parametrize(
    ("size", "chunk", "chunks", "parts"),
    [
        (1, 1, "2", [1]),
        (2 * BLOCK, 1, "2", [2 * BLOCK]),
        (2 * BLOCK + 1, 1, "2", [2 * BLOCK, 1]),
        (5 * BLOCK, 1, "2", [2 * BLOCK, 2 * BLOCK, BLOCK]),
        (5 * BLOCK + 7, 1, "", [5 * BLOCK + 7]),
        (5 * BLOCK + 7, 2, "1", [2 * BLOCK, 2 * BLOCK, BLOCK + 7]),
        (4 * BLOCK, 2, "", [4 * BLOCK]),
    ],
)
def test_parts(crash: Crash, size: int, chunk: int, chunks: str, parts: list[int]) -> None:
    data = bytes(number % 251 for number in range(size))
    script = f"CHUNK={chunk} PART_CHUNKS={chunks}; write_parts x || :"
    assert crash.run(script, data) == (0, "")
    files = sorted(crash.dump.glob("x.*"))
    assert [path.name for path in files] == [f"x.{number:03d}" for number in range(len(parts))]
    assert [path.stat().st_size for path in files] == parts
    assert b"".join(path.read_bytes() for path in files) == data
    assert crash.sums() == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def test_nothing_is_written_after_the_first_error_of_a_stick(full_stick: Crash) -> None:
    """The input never ends: only giving up ends this test."""
    status, log = full_stick.run(f"produce() {{ yes; }}; {SAVE}")
    assert status == 0, log
    assert "FAILED stick: writing x.000: dd: " in log
    assert [path.name for path in full_stick.dump.glob("x.*")] == ["x.000"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("produce() { :; }", "read: x is empty"),
        ("produce() { echo data; echo 'no vmcore' >&2; return 3; }", "read: produce: no vmcore"),
        ("produce() { echo data; }; KEY_TIME=20260101T000000", "gpg: gpg (status 2): gpg: "),
        # As when the kernel kills it for want of memory: it says nothing itself.
        (
            "produce() { echo data; }; KEY_TIME=1; gpg() { cat >/dev/null; sh -c 'kill -9 $$'; }",
            "gpg: gpg (status 137): ",
        ),
        ("produce() { echo data; }; DUMP=$TMP/none", "stick: writing x.000: dd: "),
        # Only the first cause is reported: SIGPIPE then ends the producer.
        ("produce() { yes; return 1; }; DUMP=$TMP/none", "stick: writing x.000: dd: "),
    ],
)
def test_save_says_what_failed(crash: Crash, script: str, says: str) -> None:
    status, log = crash.run(f"{script}; {SAVE}")
    assert status == 0, log
    assert f"FAILED {says}" in log
    assert "went on" in log


# A command of a function, which kills the shell that runs the function.
DIE = "sh -c 'kill -9 $PPID'"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (f"produce() {{ echo data; {DIE}; }}", "read: a process was killed"),
        (f"produce() {{ echo data; }}; encrypt() {{ cat; {DIE}; }}", "gpg: a process was killed"),
        (
            f"produce() {{ echo data; }}; write_parts() {{ cat >/dev/null; {DIE}; }}",
            "stick: a process was killed",
        ),
        (
            f"produce() {{ echo data; }}; write_part() {{ cat >$1; {DIE}; }}",
            "stick: writing x.000: a process was killed",
        ),
        (  # in the second part, before it has written anything
            "produce() { echo data; }; write_part() { case $1 in *.000) head -c 5 >$1; cat $1;"
            f"reached part ;; *) {DIE} ;; esac; }}",
            "stick: a process was killed",
        ),
        (
            f"produce() {{ echo data; }}; sha256sum() {{ cat >/dev/null; {DIE}; }}",
            "stick: writing x.000: a process was killed",
        ),
    ],
)
def test_a_shell_that_is_killed(crash: Crash, script: str, says: str) -> None:
    """It reports nothing itself, and the others only see an end of their input."""
    _, log = crash.run(f"{script}; {SAVE}")
    assert f"FAILED {says}" in log


def test_save_on_a_full_stick(full_stick: Crash) -> None:
    _, log = full_stick.run(f"produce() {{ yes | head -c 1000000; }}; {SAVE}")
    assert "FAILED stick: writing x.000: dd: " in log
    assert "No space left" in log


def test_a_dump_whose_write_back_fails_is_not_saved(short_medium: Crash) -> None:
    """30 MB do not fit. dd and sync(2) do not report the error, and the old dump stays."""
    crash = short_medium
    old = crash.dumps / "20260101T000000Z"
    old.mkdir(parents=True)
    (old / "SHA256SUMS").touch()
    status, log = crash.run(
        "read_log() { echo log; }; read_memory() { head -c 30000000 /dev/urandom; }; KEEP=1;"
        f"{OPEN}; save_log; save_memory; publish; remove_old_dumps"
    )
    assert status == 1
    assert "failed: could not save the memory: writing vmcore.flat.000: dd: " in log
    assert log.count("writing vmcore.flat.000: ") == 1
    assert "saved as" not in log
    assert old.exists()
    assert [path.name for path in crash.dumps.glob("*Z")] == [old.name]


def test_data_that_cannot_be_read_back_gets_no_checksum(crash: Crash) -> None:
    """Nobody would notice that the checksum is wrong before the dump is restored."""
    dd = 'dd() { case $* in *" if="*) echo EIO >&2; return 1 ;; esac; command dd "$@"; };'
    _, log = crash.run(f"{dd} produce() {{ echo data; }}; {SAVE}")
    assert "FAILED stick: reading x.000 back: EIO\n" in log


def test_save_without_encryption(crash: Crash) -> None:
    assert crash.run("produce() { echo data; echo noise >&2; }; save x produce") == (0, "")
    assert (crash.dump / "x.000").read_text() == "data\n"


@pytest.mark.parametrize("user", ["good", "expired"])
def test_encrypt(crash: Crash, keys: Keyring, user: str) -> None:
    """The clock does not matter: one key is valid now, the other was valid long ago."""
    key = crash.top / "key"
    key.write_bytes(keys.public(f"{user}@example.org"))
    valid_at = keys_of_tinykdump.last_change(key.read_bytes())
    # The path of the key is the only one that is not a variable.
    wrapper = f"""
    gpg() {{
        for word; do
            shift; [ "$word" != /etc/tinykdump.key ] || word={key}; set -- "$@" "$word"
        done
        env -i PATH="$PATH" gpg "$@"
    }}
    KEY_TIME={valid_at}; produce() {{ echo secret; }}; save x produce
    """
    assert crash.run(wrapper) == (0, "")
    packed = (crash.dump / "x.gpg.000").read_bytes()
    assert b"secret" not in packed
    assert keys.gpg("--decrypt", stdin=packed) == b"secret\n"
    assert list(crash.sums()) == ["x.gpg.000"]
    assert not list((crash.top / "tmp").glob("S.*")), "an agent was started"


# --- makedumpfile -----------------------------------------------------------------------

OLD, NEW = b"OFFSET(page.compound_head)=", b"OFFSET(page.compound_info)="
PROGRAM = b"\x7fELF\0" + OLD + b"\0\xff\n" + OLD + b"%ld\n\0"
NOTE = struct.pack("<III12s", 12, 0, 0, b"VMCOREINFO") + b"OSRELEASE=7\n"


def vmcore(notes: bytes) -> bytes:
    """The start of /proc/vmcore: ELF header, program header of the notes, notes, then memory."""
    headers = bytes(64) + struct.pack("<IIQQQQQQ", 4, 0, 4096, 0, 0, len(notes), len(notes), 0)
    return headers.ljust(4096, b"\0") + notes.ljust(-len(notes) % 4096 + len(notes), b"\0")


@pytest.mark.parametrize(
    ("core", "taught"),
    [
        (vmcore(NOTE + NEW + b"8\n"), True),
        (vmcore(bytes(70_000) + NOTE + b"SIZE(page)=64\n" + NEW + b"8\n"), True),
        (vmcore(NOTE + OLD + b"8\n"), False),
        (vmcore(NOTE + OLD + b"8\n") + b"\n" + NEW + b"8\n", False),  # in memory, not in the notes
    ],
)
def test_makedumpfile_is_patched_for_the_crashed_kernel(
    crash: Crash, core: bytes, taught: bool
) -> None:
    names = {name: crash.top / name for name in ("VMCORE", "MAKEDUMPFILE", "RENAMED")}
    names["VMCORE"].write_bytes(core)
    names["MAKEDUMPFILE"].write_bytes(PROGRAM)
    names["RENAMED"].write_text("".join(f"{offset}\n" for offset in renamed(PROGRAM)))
    settings = " ".join(f"{name}={path}" for name, path in names.items())
    status, log = crash.run(f"{settings}; teach_makedumpfile")
    assert status == 0, log
    assert ("patched makedumpfile" in log) == taught
    expected = PROGRAM.replace(OLD + b"\0", NEW + b"\0") if taught else PROGRAM
    assert names["MAKEDUMPFILE"].read_bytes() == expected


def test_a_makedumpfile_that_knows_the_name_is_not_patched(crash: Crash) -> None:
    """It does not read the vmcore."""
    assert crash.run("RENAMED=/dev/null VMCORE=/none; teach_makedumpfile") == (0, "")


# --- fallbacks --------------------------------------------------------------------------


def memory(crash: Crash, makedumpfile: str, more: str = "") -> tuple[int, str]:
    """Save the log and the memory; ``makedumpfile`` is a function body, with arguments ``$*``."""
    (crash.top / "core").write_bytes(b"all of it")
    return crash.run(
        f"makedumpfile() {{ {makedumpfile}; }}; VMCORE={crash.top}/core; {more}"
        "true >$DUMP/SHA256SUMS; FINAL_NAME=$STICK/final; save_log; save_memory; publish"
    )


def test_the_memory_is_saved_even_if_the_log_cannot_be_read(crash: Crash) -> None:
    fails = 'case $* in *dmesg*) echo half >$4; echo "no log" >&2; return 1 ;; esac; echo x'
    status, log = memory(crash, fails)
    assert status == 0, log
    assert not (crash.top / "tmp/dmesg").exists(), "it takes memory of the crash kernel"
    assert "could not save the log: read_log: no log; going on\n" in log
    assert log.endswith("saved as final without the log\n")
    assert (crash.stick / "final/vmcore.flat.000").read_text() == "x\n"


def test_a_crash_on_purpose_leaves_its_id_and_the_time(crash: Crash) -> None:
    """The last id in the log; other texts that look like it are none."""
    ids = ("0123456789abcdef", "fedcba9876543210", "0123456789abcdef and more", "012")
    lines = shlex.join(f"[    1.0] tinykdump: test {each}" for each in ids)
    script = f'case $* in *dmesg*) printf "%s\\n" {lines} >$TMP/dmesg ;; *) echo x ;; esac'
    before = int(time.time())
    status, log = memory(crash, script)
    assert status == 0, log
    assert "s] test fedcba9876543210\n" in log
    said = parts.test(crash.stick / "final")
    assert said is not None and said[1] is not None
    assert said[0] == "fedcba9876543210" and before <= said[1] <= time.time()
    assert look(crash.stick / "final").ignored == ()


def test_another_crash_leaves_no_file_of_a_test(crash: Crash) -> None:
    status, _ = memory(crash, "case $* in *dmesg*) echo log >$TMP/dmesg ;; *) echo x ;; esac")
    assert status == 0
    assert not (crash.stick / "final/TEST").exists()


def test_an_incomplete_dump_of_a_crash_on_purpose_has_its_id(crash: Crash) -> None:
    text = "tinykdump: test 0123456789abcdef"
    memory(crash, f'case $* in *dmesg*) echo "{text}" >$TMP/dmesg ;; *) return 1 ;; esac',
           "copy_memory() { return 1; }; ")  # fmt: skip
    assert parts.test(crash.dump) == ("0123456789abcdef", None)


LEVELS = 'case $* in *dmesg*) echo log >$TMP/dmesg; return ;; *"-d {level} "*) echo x; return ;; '\
    'esac; echo half; echo "page tables are damaged" >&2; return 1'  # fmt: skip


def test_a_log_that_is_cut_off_has_no_sum(crash: Crash) -> None:
    """restore reports it; the rest of the dump is complete."""
    cut = "encrypt() { [ ! -e $TMP/log ] || { cat; return; }; touch $TMP/log; head -c 2; false; };"
    status, log = memory(crash, LEVELS.format(level=31), cut)
    assert status == 0, log
    assert log.endswith("saved as final without the log\n")
    final = crash.stick / "final"
    assert (final / "dmesg.txt.000").read_text() == "lo"
    assert list(parse_sums((final / SUMS).read_text())) == ["vmcore.flat.000"]
    assert [bool(part.sums) for stream in look(final).streams for part in stream.parts] == [
        False, True
    ]  # fmt: skip


def test_a_lower_level_is_tried_when_makedumpfile_fails(crash: Crash) -> None:
    status, log = memory(crash, LEVELS.format(level=1))
    assert status == 0, log
    assert "at level 31: read_memory: page tables are damaged; trying level 1\n" in log
    assert log.endswith("saved as final\n")
    final = crash.stick / "final"
    assert (final / "vmcore.flat.000").read_text() == "x\n"
    lines = (final / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["dmesg.txt.000", "vmcore.flat.000"]
    assert lines[1].startswith(hashlib.sha256(b"x\n").hexdigest())


def test_the_memory_is_copied_when_makedumpfile_fails_at_every_level(crash: Crash) -> None:
    status, log = memory(crash, LEVELS.format(level=99))
    assert status == 0, log
    assert log.endswith("saved as final\n")
    final = crash.stick / "final"
    assert (final / "vmcore.000").read_bytes() == b"all of it"
    assert not list(final.glob("vmcore.flat*"))


def test_more_is_filtered_when_the_stick_is_full(crash: Crash) -> None:
    """Simulated: the dump at level 0 is too large."""
    full = 'case $* in *"-d 0 "*) yes | head -c 300000 ;; *) echo x ;; esac'
    short = "free_kib() { [ -s $DUMP/vmcore.flat.000 ] && echo 0 || echo 9999999; }"
    status, log = memory(crash, full, f"LEVEL=0 CHUNK=1 SPARE=0; {short}; ")
    assert status == 0, log
    assert "at level 0: writing vmcore.flat.000: the stick is full; trying level 31\n" in log
    assert (crash.stick / "final/vmcore.flat.000").read_text() == "x\n"


@pytest.mark.parametrize("cause", ["gpg", "stick"])
def test_there_is_no_second_try_if_makedumpfile_is_not_the_cause(crash: Crash, cause: str) -> None:
    save = f"save() {{ CAUSE={cause} FAILURE=reason; say TRIED; return 1; }}"
    status, log = crash.run(f"{save}; save_memory")
    assert status == 1
    assert log.count("TRIED") == 1
    assert "failed: could not save the memory: reason\n" in log
