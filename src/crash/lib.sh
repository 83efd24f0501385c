# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# What src/crash/init is made of. Each function is one stage; one that can not do its work
# calls die, which ends in finish(). POSIX sh, run by busybox.
#
# The variables that are read and not set here come from /etc/tinykdump.conf.
# shellcheck disable=SC2154

# The tests run these functions on an ordinary system, with a file or a tree of their own.
KMSG=${KMSG:-/dev/kmsg}
SYS=${SYS:-/sys}
DEV=${DEV:-/dev}
MODULES=${MODULES:-/lib/modules.order}
VMCORE=${VMCORE:-/proc/vmcore}
MAKEDUMPFILE=${MAKEDUMPFILE:-/bin/makedumpfile}
RENAMED=${RENAMED:-/lib/makedumpfile.renamed}
STICK=${STICK:-/mnt}         # where the stick is mounted
TMP=${TMP:-/run/tinykdump}   # in memory
CHUNK=${CHUNK:-128}          # blocks of 64 KiB that are written at a time
DUMP=                        # the directory on the stick, once it is there
OUTCOME=failed

# --- what everybody needs ---------------------------------------------------------------

# Log one line to the kernel's log, from where the console and pstore get it.
say() {
	echo "<5>tinykdump: $*" >"$KMSG"
}

# Programs stand in /bin, and their libraries in /lib, which not every ld.so looks into.
set_paths() {
	export PATH=/bin LD_LIBRARY_PATH=/lib
}

stage() {
	read -r uptime _ </proc/uptime
	say "[$uptime s] $*"
}

die() {
	stage "failed: $*"
	exit 1
}

# The crash kernel's own log goes along, for those who ask what went wrong. Then the stick
# is let go, and the machine does what was configured.
finish() {
	trap - EXIT
	if [ "$OUTCOME" != saved ] && [ -d "$DUMP" ]; then
		(save crash-kernel.txt dmesg)
	fi
	cd /
	sync
	umount "$STICK" 2>/dev/null
	stage "dump $OUTCOME; final action: $FINAL_ACTION"
	"$FINAL_ACTION" -f
	# Without that system call the kernel ends a PID 1 that exits by a panic, and panic=10
	# on its command line reboots.
	exit 1
}

mount_kernel_interfaces() {
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mount -t devtmpfs devtmpfs /dev
	mkdir -p "$TMP" "$STICK"
}

# --- hardware ---------------------------------------------------------------------------

# In load order, with their parameters: there is no modprobe here that takes them from the
# command line. A module that is in the kernel needs its file no more, and memory is short.
load_modules() {
	while read -r module parameters; do
		insmod "$module" ${parameters:+"$parameters"} || say "could not load $module"
		rm -f "$module"
	done <"$MODULES"
}

# Some backends of pstore, which keeps this kernel's log, write nothing before it is mounted.
mount_pstore() {
	[ ! -d /sys/fs/pstore ] || mount -t pstore pstore /sys/fs/pstore
}

# A hardware watchdog that ran before the crash is still counting.
feed_watchdog() {
	for device in /dev/watchdog[0-9]*; do
		[ -c "$device" ] && watchdog -t 5 -T 60 "$device"
	done
}

# Take away the device nodes of every disk that is not behind USB: what has no node can not
# be looked at, mounted or written. /dev is this kernel's own.
hide_other_disks() {
	for disk in "$SYS"/class/block/*; do
		case $(readlink -f "$disk") in
		*/usb[0-9]*/*) ;;
		*) rm -f "$DEV/$(sed -n 's/^DEVNAME=//p' "$disk/uevent")" ;;
		esac
	done
}

# Some host controllers do not come up after a kexec before they are reset once more.
rebind_controllers() {
	say "no stick yet: resetting the USB host controllers"
	for device in "$SYS"/bus/pci/drivers/[a-z]hci*/*:*; do
		[ -e "$device" ] || continue
		echo "${device##*/}" >"${device%/*}/unbind"
		echo "${device##*/}" >"${device%/*}/bind"
	done
}

# Sets DEVICE. By polling: there is no udev here, and a stick takes what time it takes.
wait_for_stick() {
	stage "waiting for the stick $TARGET_TAG=$TARGET_VALUE"
	waited=0 # in fifths of a second
	while :; do
		hide_other_disks
		DEVICE=$(findfs "$TARGET_TAG=$TARGET_VALUE" 2>/dev/null) && break
		waited=$((waited + 1))
		[ "$waited" -lt $((WAIT * 5)) ] ||
			die "no stick $TARGET_TAG=$TARGET_VALUE within $WAIT s"
		[ $((waited % 25)) -ne 0 ] || say "waited $((waited / 5)) of $WAIT s for the stick"
		[ "$waited" -ne $((WAIT * 5 / 2)) ] || rebind_controllers
		sleep 0.2
	done
	[ -z "$ROOT_UUID" ] || [ "$(findfs "UUID=$ROOT_UUID" 2>/dev/null)" != "$DEVICE" ] ||
		die "$DEVICE is the root file system of the crashed system, not a stick for dumps"
	stage "found the stick: $DEVICE"
}

# Sets PART_CHUNKS, the size at which a file is continued in the next: FAT ends at 4 GiB less
# one byte, the others at more than a machine's memory.
mount_stick() {
	for type in $FILESYSTEMS; do
		options=nosuid,nodev,noexec,noatime PART_CHUNKS=
		if [ "$type" = vfat ]; then
			options=$options,codepage=437,iocharset=ascii PART_CHUNKS=511
		fi
		mount -t "$type" -o "$options" "$DEVICE" "$STICK" 2>"$TMP/mount" && return
		say "not mounted as $type: $(cat "$TMP/mount")"
	done
	die "$DEVICE has none of the file systems that this image knows: $FILESYSTEMS"
}

# --- the user's script ------------------------------------------------------------------

run_script() {
	[ -n "$SCRIPT" ] || return 0
	stage "running the script"
	busybox --install -s /bin # scripts use what they like; this tree is not needed without
	(cd / && timeout -k 2 "$SCRIPT_WAIT" "$SCRIPT" "$STICK" </dev/null >"$KMSG" 2>&1)
	status=$?
	[ "$status" -eq 0 ] || say "the script ended with status $status; going on"
}

# --- the dump ---------------------------------------------------------------------------

# Sets DUMP, a new directory whose name ends in .partial until it is complete. Making it and
# syncing it is the proof that the stick can be written.
open_dump_directory() {
	for link in "$STICK/tinykdump" "$STICK/tinykdump/$MACHINE"; do
		[ ! -L "$link" ] || die "the stick has a link where the dumps should be"
	done
	name=$STICK/tinykdump/$MACHINE/$(date -u +%Y%m%dT%H%M%SZ)
	# A machine without a clock gives the same time twice; nothing is overwritten.
	suffix=
	while [ -e "$name$suffix" ] || [ -e "$name$suffix.partial" ]; do
		suffix=$((${suffix:-0} - 1))
	done
	FINAL_NAME=$name$suffix
	if ! mkdir -p "$FINAL_NAME.partial" || ! : >"$FINAL_NAME.partial/SHA256SUMS"; then
		die "the stick can not be written"
	fi
	sync
	DUMP=$FINAL_NAME.partial
}

# The notes of the crashed kernel, vmcoreinfo among them. They are what the first program header
# is about, of which p_offset is at 72, and p_filesz three longs behind (elf(5)).
crashed_notes() {
	# shellcheck disable=SC2046 # four numbers
	set -- $(od -A n -t u8 -j 72 -N 32 "$VMCORE")
	dd if="$VMCORE" bs=4096 skip=$(($1 / 4096)) count=$((($4 + 4095) / 4096)) 2>/dev/null
}

# Have the copy of makedumpfile that is here look for a name that is in the crashed kernel's
# vmcoreinfo: see src/tinykdump/makedumpfile.py.
teach_makedumpfile() {
	new='OFFSET(page.compound_info)='
	[ -s "$RENAMED" ] && crashed_notes | grep -q "^$new" || return 0
	while read -r offset; do
		printf %s "$new" | dd of="$MAKEDUMPFILE" bs=1 seek="$offset" conv=notrunc 2>/dev/null
	done <"$RENAMED"
	say "makedumpfile is made to look for $new"
}

# makedumpfile seeks in the log that it writes, so the log (and it alone) is in memory first.
read_log() {
	makedumpfile --dump-dmesg -f "$VMCORE" "$TMP/dmesg" >"$TMP/messages" || return
	cat "$TMP/dmesg"
	rm -f "$TMP/dmesg"
}

# -F: the flattened format, which needs no seek and so can be piped (makedumpfile(8)).
# shellcheck disable=SC2086 # DUMP_FLAGS is a list of flags
read_memory() {
	makedumpfile -F $DUMP_FLAGS "$VMCORE"
}

# The clock can be behind the key's, after an empty battery for example.
encrypt() {
	if [ -z "$ENCRYPT" ]; then
		cat
		return
	fi
	gpg --homedir "$TMP" --no-options --batch --no-tty --quiet --no-autostart \
		--no-keyring --trust-model always --compress-algo none \
		--ignore-time-conflict --ignore-valid-from \
		--recipient-file /etc/tinykdump.key --encrypt
}

# Standard input to $1.000, $1.001, ... of at most PART_CHUNKS chunks each, with their sums.
write_parts() {
	part=0
	while [ ! -e "$TMP/failed" ]; do
		file=$(printf '%s.%03d' "$1" "$part")
		sum=$(write_part "$DUMP/$file" | sha256sum)
		if [ ! -s "$DUMP/$file" ]; then
			rm -f "$DUMP/$file"
			[ "$part" -gt 0 ] || echo "$1 is empty" >>"$TMP/failed"
			return
		fi
		echo "${sum%% *}  $file" >>"$DUMP/SHA256SUMS"
		part=$((part + 1))
	done
}

# Standard input to the file $1 until it ends or the part is full, and from there, while it is
# still in memory, to standard output to be summed. The first error of the stick is the end:
# nobody reads the input then, and whatever produces it ends by SIGPIPE. (tee would go on, and
# a full FAT is searched through for each write.)
write_part() {
	chunk=0
	while [ "$chunk" != "$PART_CHUNKS" ]; do
		start=$((chunk * CHUNK))
		if ! dd bs=65536 count="$CHUNK" iflag=fullblock of="$1" seek="$start" conv=notrunc \
			2>"$TMP/dd"; then
			echo "writing ${1##*/}: $(sed -n 1p "$TMP/dd")" >>"$TMP/failed"
			return
		fi
		dd bs=65536 if="$1" skip="$start" 2>"$TMP/sum"
		chunk=$((chunk + 1))
		# "128+0 records in": there may be more.
		[ "$(sed -n 1p "$TMP/dd")" = "$CHUNK+0 records in" ] || return
	done
}

show_progress() {
	while sleep 10; do
		say "$1: $(du -m "$DUMP" | cut -f1) MiB on the stick"
	done
}

# save NAME COMMAND: the output of COMMAND on the stick, encrypted.
save() {
	rm -f "$TMP/failed"
	show_progress "$1" &
	progress=$!
	{ "$2" 2>"$TMP/errors" || echo "$2: $(tr '\r' '\n' <"$TMP/errors" | tail -n 1)" >>"$TMP/failed"; } |
		{ encrypt 2>"$TMP/gpg" || echo "gpg: $(tail -n 1 "$TMP/gpg")" >>"$TMP/failed"; } |
		write_parts "$1${ENCRYPT:+.gpg}"
	kill "$progress"
	sync
	[ ! -e "$TMP/failed" ] || die "$1 is not complete: $(tr '\n' ';' <"$TMP/failed")"
}

publish() {
	mv "$DUMP" "$FINAL_NAME" || die "could not rename $DUMP"
	sync
	OUTCOME=saved
	stage "saved as ${FINAL_NAME#"$STICK"/}"
}

# Complete dumps of this machine beyond KEEP, the oldest first: their names sort by time.
remove_old_dumps() {
	[ "$KEEP" -gt 0 ] || return 0
	set --
	for old in "$STICK/tinykdump/$MACHINE"/*Z*; do
		case $old in
		*.partial) ;;
		"$FINAL_NAME") ;; # it is one of them, even if the clock says that it is old
		*) [ ! -f "$old/SHA256SUMS" ] || set -- "$@" "$old" ;;
		esac
	done
	while [ "$#" -ge "$KEEP" ]; do
		say "removing the old dump ${1##*/}"
		rm -rf "$1"
		shift
	done
}

# --- at build time ----------------------------------------------------------------------

# Run in the staged tree by src/crash/check: every program starts with the libraries that it
# has there, and gpg encrypts to the key. An input that is no vmcore makes makedumpfile fail
# in its own words with status 1; a program that can not run fails in other ways.
# shellcheck disable=SC2086 # DUMP_FLAGS is a list of flags
self_check() {
	set_paths
	mkdir -p "$TMP"
	echo probe | encrypt >"$TMP/probe" || exit
	[ -s "$TMP/probe" ] || { echo "gpg encrypted nothing" >&2; exit 1; }
	makedumpfile -F $DUMP_FLAGS /etc/tinykdump.conf >/dev/null 2>"$TMP/errors"
	status=$?
	[ "$status" -eq 1 ] || { tail -n 1 "$TMP/errors" >&2; echo "makedumpfile: status $status" >&2; exit 1; }
}
