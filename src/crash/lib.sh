# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# The functions of src/crash/init. POSIX sh, run by busybox.
#
# Two processes share the work. PID 1 supervises: it never touches the stick, so a stick that hangs
# cannot stop it. capture() runs in a child. Each of its functions is one stage; a stage that fails
# calls die, which ends the child. Both processes use the files in $TMP:
#
#   progress  grows while there is progress
#   patience  allowed seconds without progress
#   dump      the directory on the stick, once it exists
#   failed    a "failed:" line was logged
#   saved     the dump is complete
#
# Variables that are not set here come from /etc/tinykdump.conf.
# shellcheck disable=SC2154

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
DUMP=                        # the directory on the stick, once it exists

# --- helpers ----------------------------------------------------------------------------

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
	tick
}

# Tell the supervisor that there is progress.
tick() {
	echo >>"$TMP/progress"
}

die() {
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

# --- the supervisor, PID 1 --------------------------------------------------------------

# supervise FUNCTION SECONDS: run FUNCTION in a child, and end it after SECONDS without progress.
# Returns its status, or 1. Kills makedumpfile first: the child may be able to go on without it.
supervise() {
	echo "$2" >"$TMP/patience"
	("$1") &
	child=$!
	grown='' ended=''
	while is_running "$child"; do
		sleep 1
		feed_watchdogs
		read -r now _ </proc/uptime
		now=${now%.*}
		# makedumpfile reports progress also while it writes nothing.
		size=$(cat "$TMP/progress" "$TMP/errors" 2>/dev/null | wc -c)
		if [ "$size" != "$grown" ]; then
			grown=$size since=$now
		elif [ $((now - since)) -ge "$(cat "$TMP/patience")" ]; then
			# It does not end while it waits for a disk: kill it only once.
			filter=$(pidof makedumpfile)
			if [ -n "$filter" ] && [ "$filter" != "$ended" ]; then
				# shellcheck disable=SC2086 # process IDs
				kill -9 $filter
				ended=$filter
				stage "killed makedumpfile: no progress for $((now - since)) s"
			else
				touch "$TMP/failed"
				stage "failed: no progress for $((now - since)) s; giving up"
				end_all
				return 1
			fi
		fi
	done
	wait "$child"
}

# explain STATUS: log the failure of a child that logged none, for example after an OOM kill.
explain() {
	[ -e "$TMP/failed" ] || stage "failed: the dump ended with status $1"
}

# Whether a child still runs and is not a zombie.
is_running() {
	read -r _ _ state _ 2>/dev/null <"/proc/$1/stat" && [ "$state" != Z ]
}

# Kill every process but PID 1 without waiting: a process that waits for a disk may never end.
end_all() {
	[ $$ -ne 1 ] || kill -9 -1
	FED=
}

# A hardware watchdog that ran before the crash is still running. Its feeder keeps the device
# open: the kernel logs a warning at each close.
feed_watchdogs() {
	for device in "$DEV"/watchdog[0-9]*; do
		case " $FED " in
		*" $device "*) continue ;;
		esac
		[ ! -c "$device" ] || feed "$device" 2>/dev/null &
		FED="$FED $device"
	done
}

feed() {
	while echo && sleep 2; do
		:
	done >"$1"
}

# After a failure, save the crash kernel's own log as well.
leave_stick() {
	if read -r DUMP 2>/dev/null <"$TMP/dump" && [ ! -e "$TMP/saved" ]; then
		save crash-kernel.txt dmesg || say "could not save the crash kernel's log: $FAILURE"
	fi
	cd /
	umount "$STICK" 2>/dev/null || sync
}

# Take the configured action. Stop feeding the watchdogs first, so that they end a reboot that
# hangs. Before poweroff and halt, stop the watchdogs.
final_action() {
	outcome=failed
	[ ! -e "$TMP/saved" ] || outcome=saved
	stage "dump $outcome; final action: $FINAL_ACTION"
	end_all
	if [ "$FINAL_ACTION" != reboot ]; then
		for device in "$DEV"/watchdog[0-9]*; do
			[ ! -c "$device" ] || echo V >"$device"
		done
	fi
	# A driver that waits for its device can block reboot; sysrq b calls no driver.
	[ "$FINAL_ACTION" != reboot ] || { sleep 30 && echo b >"$SYSRQ"; } &
	# -n: all data is on the stick already, and a sync would block on a stick that hangs.
	"$FINAL_ACTION" -n -f 2>"$TMP/final" || end_without_applet
	# If that fails, the exit of PID 1 makes the kernel panic, and panic=10 on its command
	# line reboots.
	exit 1
}

# SUSE's busybox has no reboot, poweroff and halt. The applets come first: with them, the kernel
# shuts its drivers down, and pstore has time to write the end of the log.
end_without_applet() {
	say "$(sed -n 1p "$TMP/final")"
	case $FINAL_ACTION in
	reboot) echo b >"$SYSRQ" ;;
	poweroff) echo o >"$SYSRQ" && sleep 30 ;; # which a worker of the kernel does
	halt) while sleep 3600; do :; done ;;
	esac
}

# --- hardware ---------------------------------------------------------------------------

# Load the modules in order, with their parameters: without modprobe, nothing else takes these from
# the command line. Delete loaded modules to save memory.
load_modules() {
	while read -r module parameters; do
		insmod "$module" ${parameters:+"$parameters"} || say "could not load $module"
		rm -f "$module"
	done <"$MODULES"
}

# pstore keeps the crash log; some of its backends write nothing until it is mounted.
mount_pstore() {
	[ ! -d /sys/fs/pstore ] || mount -t pstore pstore /sys/fs/pstore
}

# Remove the device nodes of all disks that are not behind USB, so that they cannot be read,
# mounted or written.
hide_other_disks() {
	for disk in "$SYS"/class/block/*; do
		case $(readlink -f "$disk") in
		*/usb[0-9]*/*) ;;
		*) rm -f "$DEV/$(sed -n 's/^DEVNAME=//p' "$disk/uevent")" ;;
		esac
	done
}

# After a kexec, some host controllers need a second reset.
rebind_controllers() {
	say "no stick yet: resetting the USB host controllers"
	for device in "$SYS"/bus/pci/drivers/[a-z]hci*/*:*; do
		[ -e "$device" ] || continue
		echo "${device##*/}" >"${device%/*}/unbind"
		echo "${device##*/}" >"${device%/*}/bind"
	done
}

# Sets DEVICE. Polls, because there is no udev.
wait_for_stick() {
	stage "waiting for the stick $TARGET_TAG=$TARGET_VALUE"
	waited=0 # in fifths of a second
	while :; do
		hide_other_disks
		DEVICE=$(findfs "$TARGET_TAG=$TARGET_VALUE" 2>/dev/null) && break
		waited=$((waited + 1))
		[ "$waited" -lt $((WAIT * 5)) ] ||
			die "no stick $TARGET_TAG=$TARGET_VALUE within $WAIT s"
		tick
		[ $((waited % 25)) -ne 0 ] || say "waited $((waited / 5)) of $WAIT s for the stick"
		[ "$waited" -ne $((WAIT * 5 / 2)) ] || rebind_controllers
		usleep 200000 # openSUSE's busybox takes only whole seconds for sleep
	done
	[ -z "$ROOT_UUID" ] || [ "$(findfs "UUID=$ROOT_UUID" 2>/dev/null)" != "$DEVICE" ] ||
		die "$DEVICE is the root file system of the crashed system, not a stick for dumps"
	stage "found the stick: $DEVICE"
}

# Sets PART_CHUNKS, the size of a part: a file on FAT is smaller than 4 GiB; the limits of the other
# file systems are larger than any memory.
mount_stick() {
	for type in $FILESYSTEMS; do
		# dirsync: a new directory or name is on the stick when the command returns.
		options=nosuid,nodev,noexec,noatime,dirsync PART_CHUNKS=
		if [ "$type" = vfat ]; then
			options=$options,codepage=437,iocharset=ascii PART_CHUNKS=511
		elif [ "$type" = exfat ]; then
			options=$options,iocharset=utf8 # needs no module, unlike other defaults of a kernel
		fi
		mount -t "$type" -o "$options" "$DEVICE" "$STICK" 2>"$TMP/mount" && return
		say "cannot mount it as $type: $(cat "$TMP/mount")"
	done
	die "cannot mount $DEVICE with any file system of this image: $FILESYSTEMS"
}

# --- the user's script ------------------------------------------------------------------

run_script() {
	[ -n "$SCRIPT" ] || return 0
	stage "running the script"
	busybox --install -s /bin # only scripts need the links
	allowed=$(cat "$TMP/patience")
	[ "$SCRIPT_WAIT" -lt "$allowed" ] || echo $((SCRIPT_WAIT + 10)) >"$TMP/patience"
	(cd / && exec setsid timeout -k 2 "$SCRIPT_WAIT" "$SCRIPT" "$STICK" </dev/null >"$KMSG" 2>&1) &
	script=$!
	wait "$script"
	status=$?
	kill -9 "-$script" 2>/dev/null # and processes that it left behind
	echo "$allowed" >"$TMP/patience"
	[ "$status" -eq 0 ] || say "the script ended with status $status; going on"
	tick
}

# --- the dump ---------------------------------------------------------------------------

# Sets DUMP, a new directory whose name ends in .partial until the dump is complete. Creating it
# proves that the stick is writable.
open_dump_directory() {
	MINE=$STICK/tinykdump/$MACHINE
	for link in "$STICK/tinykdump" "$MINE"; do
		[ ! -L "$link" ] || die "the stick has a link where the dumps should be"
	done
	make_room "$SPARE"
	name=$MINE/$(date -u +%Y%m%dT%H%M%SZ)
	# Without a clock the same time can come twice: never overwrite a dump.
	suffix=
	while [ -e "$name$suffix" ] || [ -e "$name$suffix.partial" ]; do
		suffix=$((${suffix:-0} - 1))
	done
	FINAL_NAME=$name$suffix
	DUMP=$FINAL_NAME.partial
	if ! { mkdir -p "$DUMP" && to_stick "$DUMP/SHA256SUMS"; } 2>"$TMP/open" </dev/null; then
		die "cannot write to the stick: $(sed -n 1p "$TMP/open")"
	fi
	echo "$DUMP" >"$TMP/dump"
}

# to_stick FILE: append standard input to FILE; succeeds when it is on the medium.
to_stick() {
	dd bs=65536 of="$1" oflag=append conv=notrunc,fsync
}

# --- space on the stick -----------------------------------------------------------------

free_kib() {
	df -Pk "${DUMP:-$STICK}" | { read -r _ && read -r _ _ _ free _ && echo "$free"; }
}

# make_room KIB: delete old files, one at a time, until that much space is free; fails if there are
# none left.
make_room() {
	while [ "$(free_kib)" -lt "$1" ]; do
		remove_torn_memory || remove_oldest_dump || return
	done
}

# Delete one memory file of an incomplete dump of this machine; its logs stay.
remove_torn_memory() {
	for torn in "$MINE"/*.partial; do
		if [ "$torn" = "$DUMP" ] || [ -L "$torn" ]; then
			continue
		fi
		for file in "$torn"/vmcore*; do
			if [ -f "$file" ] && rm -f "$file"; then
				say "no space: removed ${file#"$MINE"/} of an incomplete dump"
				return
			fi
		done
	done
	return 1
}

# The names of this machine's complete dumps except the new one, the oldest first. They sort by
# time. Other names are skipped: they could contain spaces.
old_dumps() {
	for old in "$MINE"/[0-9]*Z*; do
		case ${old##*/} in
		*[!0-9TZ-]*) ;;
		"${FINAL_NAME##*/}") ;; # the new one, wherever the clock sorts it
		*) [ -L "$old" ] || [ ! -f "$old/SHA256SUMS" ] || echo "${old##*/}" ;;
		esac
	done
}

# Delete the oldest complete dump, but never the last one: the new one may still fail.
remove_oldest_dump() {
	[ "$KEEP" -gt 0 ] || return
	# shellcheck disable=SC2046 # names
	set -- $(old_dumps)
	[ "$#" -gt 1 ] || return
	say "no space: removing the old dump $1"
	rm -rf "${MINE:?}/$1"
}

# --- makedumpfile -----------------------------------------------------------------------

# The notes of the crashed kernel, with vmcoreinfo. The first program header describes them; its
# p_offset is at byte 72, and p_filesz three longs later (elf(5)).
crashed_notes() {
	# shellcheck disable=SC2046 # four numbers
	set -- $(od -A n -t u8 -j 72 -N 32 "$VMCORE")
	dd if="$VMCORE" bs=4096 skip=$(($1 / 4096)) count=$((($4 + 4095) / 4096)) 2>/dev/null
}

# Patch this copy of makedumpfile to look for a name that the crashed kernel's vmcoreinfo has: see
# src/tinykdump/image/makedumpfile.py.
teach_makedumpfile() {
	new='OFFSET(page.compound_info)='
	[ -s "$RENAMED" ] && crashed_notes | grep -q "^$new" || return 0
	while read -r offset; do
		printf %s "$new" | dd of="$MAKEDUMPFILE" bs=1 seek="$offset" conv=notrunc 2>"$TMP/dd" ||
			{ say "cannot patch makedumpfile: $(sed -n 1p "$TMP/dd")"; return; }
	done <"$RENAMED"
	say "patched makedumpfile to look for $new"
}

# makedumpfile seeks in the log that it writes, so only the log is kept in memory first.
read_log() {
	makedumpfile --dump-dmesg -f "$VMCORE" "$TMP/dmesg" >"$TMP/messages" || return
	cat "$TMP/dmesg"
	rm -f "$TMP/dmesg"
}

# -F: the flattened format, which can be piped (makedumpfile(8)).
# shellcheck disable=SC2086 # COMPRESSION is a flag or nothing
read_memory() {
	makedumpfile -F $COMPRESSION -d "$LEVEL" "$VMCORE"
}

# --- writing ----------------------------------------------------------------------------

# The faked time is the key's last change: every key that tinykdump accepts was valid then, so this
# machine's clock does not matter.
encrypt() {
	if [ -z "$KEY_TIME" ]; then
		cat
		return
	fi
	gpg --homedir "$TMP" --no-options --batch --no-tty --quiet --no-autostart \
		--no-keyring --trust-model always --compress-algo none \
		--faked-system-time "$KEY_TIME!" --ignore-time-conflict --ignore-valid-from \
		--recipient-file /etc/tinykdump.key --encrypt
}

# fail CAUSE MESSAGE: record why a stream is incomplete. CAUSE is read, gpg, stick or full.
fail() {
	echo "$2" >>"$TMP/fail.$1"
}

# Write standard input to $1.000, $1.001, ... of at most PART_CHUNKS chunks each, and their sums.
write_parts() {
	part=0
	touch "$TMP/more"
	while [ -e "$TMP/more" ]; do
		file=$(printf '%s.%03d' "$1" "$part")
		if ! to_stick "$DUMP/$file" 2>"$TMP/open" </dev/null; then
			fail stick "writing $file: $(sed -n 1p "$TMP/open")"
			return
		fi
		# Keep the file open: the kernel reports its write errors only as long as it is.
		# shellcheck disable=SC2094 # nothing is written through it
		sum=$({ write_part "$DUMP/$file"; } 7>>"$DUMP/$file" | sha256sum)
		if [ ! -s "$DUMP/$file" ]; then
			rm -f "$DUMP/$file"
			[ "$part" -gt 0 ] || has_failed read || fail read "$1 is empty"
			return
		fi
		# A part without a sum is incomplete; restore reports it.
		has_failed full stick gpg read && return
		if ! echo "${sum%% *}  $file" | to_stick "$DUMP/SHA256SUMS" 2>"$TMP/dd"; then
			fail stick "writing SHA256SUMS: $(sed -n 1p "$TMP/dd")"
			return
		fi
		part=$((part + 1))
	done
}

# Write standard input to the file $1 until the input ends or the part is full, and copy it to
# standard output for the checksum. $TMP/more remains if there may be more input. After an error of
# the stick nothing reads the input, so SIGPIPE ends its producer. (tee would continue, and each
# write would search the full FAT.)
write_part() {
	chunk=0 syncing=
	while [ "$chunk" != "$PART_CHUNKS" ] && write_chunk "$1" $((chunk * CHUNK)); do
		chunk=$((chunk + 1))
	done
	end_sync "$1"
}

# write_chunk FILE START: write a chunk of standard input to FILE, and copy it from there, while it
# is still cached, to standard output. Succeeds if there may be more input.
write_chunk() {
	if ! make_room $((CHUNK * 64 + SPARE)) && [ "$1" != "${1%/vmcore*}" ]; then
		fail full "writing ${1##*/}: the stick is full"
		return 1
	fi
	if ! dd bs=65536 count="$CHUNK" iflag=fullblock of="$1" seek="$2" conv=notrunc 2>"$TMP/dd"; then
		fail stick "writing ${1##*/}: $(sed -n 1p "$TMP/dd")"
		return 1
	fi
	end_sync "$1" || return
	start_sync "$1"
	if ! dd bs=65536 if="$1" skip="$2" 2>"$TMP/sum"; then
		fail stick "reading ${1##*/} back: $(sed -n 1p "$TMP/sum")"
		return 1
	fi
	tick
	# "128+0 records in": there may be more.
	[ "$(sed -n 1p "$TMP/dd")" = "$CHUNK+0 records in" ] || { rm "$TMP/more"; return 1; }
}

# Sync a chunk while the next one is produced; at most one sync is pending.
start_sync() {
	dd of="$1" count=0 conv=notrunc,fsync 2>"$TMP/fsync" </dev/null &
	syncing=$!
}

end_sync() {
	[ -z "$syncing" ] || wait "$syncing" ||
		{ fail stick "writing ${1##*/}: $(sed -n 1p "$TMP/fsync")"; return 1; }
}

show_progress() {
	while sleep 10; do
		say "$1: $(du -m "$DUMP" | cut -f1) MiB on the stick"
	done
}

# Whether fail recorded one of these causes.
has_failed() {
	for cause; do
		[ ! -e "$TMP/fail.$cause" ] || return 0
	done
	return 1
}

# save NAME COMMAND: write the output of COMMAND to the stick, encrypted. If it is incomplete, set
# CAUSE to the first cause, and FAILURE to its messages.
save() {
	rm -f "$TMP"/fail.* "$TMP/errors"
	show_progress "$1" &
	progress=$!
	{ "$2" 2>"$TMP/errors" || fail read "$2: $(last_line "$TMP/errors")"; } |
		{ encrypt 2>"$TMP/gpg" || fail gpg "gpg: $(tail -n 1 "$TMP/gpg")"; } |
		write_parts "$1${KEY_TIME:+.gpg}"
	kill "$progress"
	for CAUSE in full stick gpg read; do
		if has_failed "$CAUSE"; then
			FAILURE=$(sed 's/$/;/' "$TMP/fail.$CAUSE" | tr '\n' ' ')
			FAILURE=${FAILURE%; }
			return 1
		fi
	done
	CAUSE=
}

# A log that cannot be saved does not stop the memory dump.
save_log() {
	stage "saving the log"
	save dmesg.txt read_log && return
	WITHOUT=" without the log"
	stage "could not save the log: $FAILURE; going on"
}

# If makedumpfile fails, try less filtering, then a plain copy. If the stick is full, try more
# filtering.
save_memory() {
	stage "saving the memory"
	save vmcore.flat read_memory && return
	case $CAUSE in
	full) levels=31 ;;
	read) levels=1 ;;
	*) levels= ;;
	esac
	if [ -n "$levels" ] && [ "$levels" != "$LEVEL" ]; then
		stage "could not save the memory at level $LEVEL: $FAILURE; trying level $levels"
		LEVEL=$levels
		forget vmcore
		save vmcore.flat read_memory && return
	fi
	if [ "$CAUSE" = read ]; then
		stage "could not save the memory with makedumpfile: $FAILURE; copying it"
		forget vmcore
		save vmcore copy_memory && return
	fi
	die "could not save the memory: $FAILURE"
}

copy_memory() {
	cat "$VMCORE"
}

# forget NAME: remove the parts of a stream and their sums.
forget() {
	grep -v "  $1" "$DUMP/SHA256SUMS" >"$TMP/sums"
	rm -f "$DUMP/$1"* "$DUMP/SHA256SUMS"
	to_stick "$DUMP/SHA256SUMS" <"$TMP/sums" 2>"$TMP/dd" || die "writing SHA256SUMS: $(sed -n 1p "$TMP/dd")"
}

# All parts are on the medium. Log "saved" when the new name is there, too.
publish() {
	say "the dump takes $(du -m "$DUMP" | cut -f1) MiB"
	mv "$DUMP" "$FINAL_NAME" 2>"$TMP/mv" || die "renaming $DUMP: $(tail -n 1 "$TMP/mv")"
	to_stick "$FINAL_NAME/SHA256SUMS" </dev/null 2>"$TMP/dd" ||
		die "renaming $DUMP: $(sed -n 1p "$TMP/dd")"
	touch "$TMP/saved"
	stage "saved as ${FINAL_NAME#"$STICK"/}$WITHOUT"
}

# Keep KEEP complete dumps of this machine.
remove_old_dumps() {
	[ "$KEEP" -gt 0 ] || return 0
	# shellcheck disable=SC2046 # names
	set -- $(old_dumps)
	while [ "$#" -ge "$KEEP" ]; do
		say "removing the old dump $1"
		rm -rf "${MINE:?}/$1"
		shift
	done
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
