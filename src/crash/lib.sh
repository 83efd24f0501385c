# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# What all functions of src/crash/init share. POSIX sh, run by busybox. In the image this file,
# supervisor.sh, stick.sh and dump.sh are one: /lib/tinykdump.sh.
#
# Two processes share the work. PID 1 supervises: it never touches the stick, so a stick that hangs
# cannot stop it. capture() runs in a child, and each try of save_dump() in a child of that one. Each
# of their functions is one stage; a stage that fails calls die, which ends its child. All processes
# use the files in $TMP:
#
#   progress  grows while there is progress
#   patience  allowed seconds without progress
#   dump      the directory on the stick, once it exists
#   failed    a "failed:" line was logged
#   saved     the dump is complete
#   end.*     what came to its end: reached() says what
#   fail.*    why something did not
#   test      the id of a crash on purpose, if it was one
#   stages    the stages, with their times
#   waits     how long each sync of the stick kept the dump waiting, in hundredths of a second
#   shell     messages of the shell itself
#
# Variables that are not set here come from /etc/tinykdump.conf.
# shellcheck disable=SC2034,SC2154 # for the same reason; some are used in other files

# The tests override these.
KMSG=${KMSG:-/dev/kmsg}
SYS=${SYS:-/sys}
DEV=${DEV:-/dev}
MODULES=${MODULES:-/lib/modules.order}
VMCORE=${VMCORE:-/proc/vmcore}
SYSRQ=${SYSRQ:-/proc/sysrq-trigger}
MAKEDUMPFILE=${MAKEDUMPFILE:-/bin/makedumpfile}
RENAMED=${RENAMED:-/lib/makedumpfile.renamed}
STICK=${STICK:-/mnt}         # where the stick is mounted
TMP=${TMP:-/run/tinykdump}   # in memory
CHUNK=${CHUNK:-128}          # blocks of 64 KiB per write
SPARE=1024                   # KiB that a memory dump leaves free for logs and checksums
PART_CHUNKS=                 # chunks per part; empty: no limit
PULLED_OUT=9                 # the status of save_dump if the stick is gone
UNUSABLE=10                  # the same if it cannot be used, and there is a second one
OTHER=                       # that one
DEVICE=                      # the stick, once it is found
DUMP=                        # the directory on the stick, once it exists

# Log one line to the kernel's log, which goes to the console and pstore.
say() {
	echo "<5>tinykdump: $*" >"$KMSG"
}

# Programs are in /bin, and their libraries in /lib, which not every ld.so searches.
set_paths() {
	export PATH=/bin LD_LIBRARY_PATH=/lib
}

stage() {
	read -r uptime _ </proc/uptime
	say "[$uptime s] $*"
	echo "[$uptime s] $*" >>"$TMP/stages"
	tick
}

# Tell the supervisor that there is progress.
tick() {
	echo >>"$TMP/progress"
}

die() {
	if is_pulled_out; then
		stage "the stick was pulled out: $*"
		exit "$PULLED_OUT"
	fi
	touch "$TMP/failed"
	stage "failed: $*"
	exit 1
}

# The last line of a program's standard error; progress bars use \r.
last_line() {
	tr '\r' '\n' <"$1" | tail -n 1
}

mount_kernel_interfaces() {
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mount -t devtmpfs devtmpfs /dev
	mkdir -p "$TMP" "$STICK"
}

# The kernel takes the hardware clock for UTC, and it has the local time of CLOCK_ZONE.
correct_clock() {
	[ -n "$CLOCK_ZONE" ] || return 0
	if ! { seconds=$(TZ=$CLOCK_ZONE date -d "$(date -u '+%Y-%m-%d %H:%M:%S')" +%s) &&
		date -s "@$seconds" >/dev/null; } 2>"$TMP/date"; then
		say "cannot correct the clock: $(sed -n 1p "$TMP/date")"
	fi
}

# --- at build time ----------------------------------------------------------------------

# src/crash/check runs this in the staged tree: every program starts with its libraries there, gpg
# encrypts to the key, and dd supports fsync. makedumpfile exits with status 1 for a file that is
# not a vmcore, and with another status if it cannot run.
self_check() {
	set_paths
	mkdir -p "$TMP"
	echo probe | encrypt >"$TMP/probe" || exit
	[ -s "$TMP/probe" ] || { echo "gpg encrypted nothing" >&2; exit 1; }
	echo | to_stick "$TMP/dd" 2>"$TMP/errors" || { cat "$TMP/errors" >&2; exit 1; }
	VMCORE=/etc/tinykdump.conf
	read_memory >/dev/null 2>"$TMP/errors"
	status=$?
	[ "$status" -eq 1 ] || { last_line "$TMP/errors" >&2; echo "makedumpfile: status $status" >&2; exit 1; }
}
