# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# What src/crash/init is made of. POSIX sh, run by busybox.
#
# Two processes share the work. PID 1 supervises: it never touches the stick, so nothing that
# hangs there can stop it. capture() runs in a child; each of its functions is one stage, and one
# that cannot do its work calls die, which ends the child. They share what is in $TMP:
#
#   progress  grows while something happens
#   patience  seconds without progress that are allowed
#   dump      the directory on the stick, once it is there
#   failed    a "failed:" line was logged
#   saved     the dump is complete
#
# The variables that are read and not set here come from /etc/tinykdump.conf.
# shellcheck disable=SC2154

# The tests run these functions on an ordinary system, with a file or a tree of their own.
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
CHUNK=${CHUNK:-128}          # blocks of 64 KiB that are written at a time
SPARE=1024                   # KiB that a memory dump leaves free, for what is to be said of it
PART_CHUNKS=                 # chunks after which a file is continued in the next; empty: never
DUMP=                        # the directory on the stick, once it is there

# --- what everybody needs ---------------------------------------------------------------

# Log one line to the kernel's log, from where the console and pstore get it.
say() {
	echo "<5>tinykdump: $*" >"$KMSG"
}

# Programs are in /bin, and their libraries in /lib, which not every ld.so looks into.
set_paths() {
	export PATH=/bin LD_LIBRARY_PATH=/lib
}

stage() {
	read -r uptime _ </proc/uptime
	say "[$uptime s] $*"
	tick
}

# Tell the supervisor that something has happened.
tick() {
	echo >>"$TMP/progress"
}

die() {
	touch "$TMP/failed"
	stage "failed: $*"
	exit 1
}

# The line of a program's standard error that says why it failed; progress bars are \r lines.
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

# supervise FUNCTION SECONDS: run FUNCTION in a child, and end it when nothing has happened for
# that long. Its status, or 1. makedumpfile goes first: the child may have another way without it.
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
		# makedumpfile says how far it is, also while it writes nothing.
		size=$(cat "$TMP/progress" "$TMP/errors" 2>/dev/null | wc -c)
		if [ "$size" != "$grown" ]; then
			grown=$size since=$now
		elif [ $((now - since)) -ge "$(cat "$TMP/patience")" ]; then
			# One that waits for a disk that does not answer is not ended by this: not twice.
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

# explain STATUS: a child can end without a word of its own, by the OOM killer for example.
explain() {
	[ -e "$TMP/failed" ] || stage "failed: the dump ended with status $1"
}

# Whether a child still runs; one that was not waited for yet is a zombie.
is_running() {
	read -r _ _ state _ 2>/dev/null <"/proc/$1/stat" && [ "$state" != Z ]
}

# End every process but PID 1. One that waits for a disk that does not answer stays, and is not
# waited for.
end_all() {
	[ $$ -ne 1 ] || kill -9 -1
	FED=
}

# A hardware watchdog that ran before the crash is still counting. Who feeds one keeps it open:
# the kernel complains of each close.
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

# The crash kernel's own log goes along, for those who ask what went wrong.
leave_stick() {
	if read -r DUMP 2>/dev/null <"$TMP/dump" && [ ! -e "$TMP/saved" ]; then
		save crash-kernel.txt dmesg || say "could not save the crash kernel's log: $FAILURE"
	fi
	cd /
	umount "$STICK" 2>/dev/null || sync
}

# What was configured. The programs that feed the watchdogs end first: a reboot that hangs is
# theirs to end. A machine that is to stay off or halted has its watchdogs stopped.
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
	# A driver that waits for its device keeps a reboot waiting; this kind asks no driver.
	[ "$FINAL_ACTION" != reboot ] || { sleep 30 && echo b >"$SYSRQ"; } &
	# -n: what was written is on the stick by now, and a stick that hangs would stop a sync.
	"$FINAL_ACTION" -n -f
	# Without that system call the kernel ends a PID 1 that exits by a panic, and panic=10
	# on its command line reboots.
	exit 1
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

# Take away the device nodes of every disk that is not behind USB: what has no node cannot
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
		tick
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
		# dirsync: a directory or a new name is on the stick when the command that makes it ends.
		options=nosuid,nodev,noexec,noatime,dirsync PART_CHUNKS=
		if [ "$type" = vfat ]; then
			options=$options,codepage=437,iocharset=ascii PART_CHUNKS=511
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
	busybox --install -s /bin # scripts use what they like; this tree is not needed without
	allowed=$(cat "$TMP/patience")
	[ "$SCRIPT_WAIT" -lt "$allowed" ] || echo $((SCRIPT_WAIT + 10)) >"$TMP/patience"
	(cd / && exec setsid timeout -k 2 "$SCRIPT_WAIT" "$SCRIPT" "$STICK" </dev/null >"$KMSG" 2>&1) &
	script=$!
	wait "$script"
	status=$?
	kill -9 "-$script" 2>/dev/null # what it has started and left behind, too
	echo "$allowed" >"$TMP/patience"
	[ "$status" -eq 0 ] || say "the script ended with status $status; going on"
	tick
}

# --- the dump ---------------------------------------------------------------------------

# Sets DUMP, a new directory whose name ends in .partial until it is complete. Making it is the
# proof that the stick can be written.
open_dump_directory() {
	MINE=$STICK/tinykdump/$MACHINE
	for link in "$STICK/tinykdump" "$MINE"; do
		[ ! -L "$link" ] || die "the stick has a link where the dumps should be"
	done
	make_room "$SPARE"
	name=$MINE/$(date -u +%Y%m%dT%H%M%SZ)
	# A machine without a clock gives the same time twice; nothing is overwritten.
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

# to_stick FILE: append standard input to FILE; success means that it is on the medium.
to_stick() {
	dd bs=65536 of="$1" oflag=append conv=notrunc,fsync
}

# --- room on the stick ------------------------------------------------------------------

free_kib() {
	df -Pk "${DUMP:-$STICK}" | { read -r _ && read -r _ _ _ free _ && echo "$free"; }
}

# make_room KIB: remove what may be removed, a file at a time, until so much is free. Its status
# says whether it is.
make_room() {
	while [ "$(free_kib)" -lt "$1" ]; do
		remove_torn_memory || remove_oldest_dump || return
	done
}

# The memory of one dump of this machine that was cut off; its logs stay.
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

# The names of this machine's complete dumps but the new one, the oldest first: they sort by time.
# A name that nobody here has given is not one: it could have a space in it.
old_dumps() {
	for old in "$MINE"/[0-9]*Z*; do
		case ${old##*/} in
		*[!0-9TZ-]*) ;;
		"${FINAL_NAME##*/}") ;; # it is one of them, even if the clock says that it is old
		*) [ -L "$old" ] || [ ! -f "$old/SHA256SUMS" ] || echo "${old##*/}" ;;
		esac
	done
}

# The oldest complete dump. Never the only one: nobody knows yet what becomes of the new one.
remove_oldest_dump() {
	[ "$KEEP" -gt 0 ] || return
	# shellcheck disable=SC2046 # names
	set -- $(old_dumps)
	[ "$#" -gt 1 ] || return
	say "no space: removing the old dump $1"
	rm -rf "${MINE:?}/$1"
}

# --- makedumpfile -----------------------------------------------------------------------

# The notes of the crashed kernel, vmcoreinfo among them. They are what the first program header
# is about, of which p_offset is at 72, and p_filesz three longs behind (elf(5)).
crashed_notes() {
	# shellcheck disable=SC2046 # four numbers
	set -- $(od -A n -t u8 -j 72 -N 32 "$VMCORE")
	dd if="$VMCORE" bs=4096 skip=$(($1 / 4096)) count=$((($4 + 4095) / 4096)) 2>/dev/null
}

# Have the copy of makedumpfile that is here look for a name that is in the crashed kernel's
# vmcoreinfo: see src/tinykdump/image/makedumpfile.py.
teach_makedumpfile() {
	new='OFFSET(page.compound_info)='
	[ -s "$RENAMED" ] && crashed_notes | grep -q "^$new" || return 0
	while read -r offset; do
		printf %s "$new" | dd of="$MAKEDUMPFILE" bs=1 seek="$offset" conv=notrunc 2>"$TMP/dd" ||
			{ say "cannot patch makedumpfile: $(sed -n 1p "$TMP/dd")"; return; }
	done <"$RENAMED"
	say "patched makedumpfile to look for $new"
}

# makedumpfile seeks in the log that it writes, so the log (and it alone) is in memory first.
read_log() {
	makedumpfile --dump-dmesg -f "$VMCORE" "$TMP/dmesg" >"$TMP/messages" || return
	cat "$TMP/dmesg"
	rm -f "$TMP/dmesg"
}

# -F: the flattened format, which needs no seek and so can be piped (makedumpfile(8)).
# shellcheck disable=SC2086 # COMPRESSION is a flag or nothing
read_memory() {
	makedumpfile -F $COMPRESSION -d "$LEVEL" "$VMCORE"
}

# --- writing ----------------------------------------------------------------------------

# The clock is that of the moment at which the key was last changed: all that was valid when
# tinykdump built this image is valid then, whatever this machine's clock says.
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

# fail CAUSE MESSAGE: note why a stream is not complete. CAUSE is read, gpg, stick or full.
fail() {
	echo "$2" >>"$TMP/fail.$1"
}

# Standard input to $1.000, $1.001, ... of at most PART_CHUNKS chunks each, with their sums.
write_parts() {
	part=0
	touch "$TMP/more"
	while [ -e "$TMP/more" ]; do
		file=$(printf '%s.%03d' "$1" "$part")
		if ! to_stick "$DUMP/$file" 2>"$TMP/open" </dev/null; then
			fail stick "writing $file: $(sed -n 1p "$TMP/open")"
			return
		fi
		# Open all the time: the kernel keeps a file's write errors as long as it keeps the file.
		# shellcheck disable=SC2094 # nothing is written through it
		sum=$({ write_part "$DUMP/$file"; } 7>>"$DUMP/$file" | sha256sum)
		if [ ! -s "$DUMP/$file" ]; then
			rm -f "$DUMP/$file"
			[ "$part" -gt 0 ] || has_failed read || fail read "$1 is empty"
			return
		fi
		if ! echo "${sum%% *}  $file" | to_stick "$DUMP/SHA256SUMS" 2>"$TMP/dd"; then
			fail stick "writing SHA256SUMS: $(sed -n 1p "$TMP/dd")"
		fi
		has_failed stick full && return
		part=$((part + 1))
	done
}

# Standard input to the file $1 until it ends or the part is full, and to standard output to be
# summed. $TMP/more stays when there may be more of it. The first error of the stick is the end:
# nobody reads the input then, and whatever produces it ends by SIGPIPE. (tee would go on, and
# a full FAT is searched through for each write.)
write_part() {
	chunk=0 syncing=
	while [ "$chunk" != "$PART_CHUNKS" ] && write_chunk "$1" $((chunk * CHUNK)); do
		chunk=$((chunk + 1))
	done
	end_sync "$1"
}

# write_chunk FILE START: a chunk of standard input to FILE, and from there, while it is still in
# memory, to standard output. Succeeds when there may be more.
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

# A chunk goes to the medium while the next one is produced, and before the one behind that is.
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

# Whether one of these causes was noted.
has_failed() {
	for cause; do
		[ ! -e "$TMP/fail.$cause" ] || return 0
	done
	return 1
}

# save NAME COMMAND: the output of COMMAND on the stick, encrypted. When it is not complete, sets
# FAILURE to the reason, and CAUSE to the first cause: what follows from it fails as well.
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

# A machine whose log cannot be read has a memory all the same.
save_log() {
	stage "saving the log"
	save dmesg.txt read_log && return
	WITHOUT=" without the log"
	stage "could not save the log: $FAILURE; going on"
}

# When makedumpfile fails, less filtering needs less of it, and a copy needs nothing. When the
# stick is full, more filtering may fit.
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

# Every part is on the medium by now; "saved" is said when the name is, too.
publish() {
	mv "$DUMP" "$FINAL_NAME" 2>"$TMP/mv" || die "renaming $DUMP: $(tail -n 1 "$TMP/mv")"
	to_stick "$FINAL_NAME/SHA256SUMS" </dev/null 2>"$TMP/dd" ||
		die "renaming $DUMP: $(sed -n 1p "$TMP/dd")"
	touch "$TMP/saved"
	stage "saved as ${FINAL_NAME#"$STICK"/}$WITHOUT"
}

# Complete dumps of this machine beyond KEEP.
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

# Run in the staged tree by src/crash/check: every program starts with the libraries that it
# has there, gpg encrypts to the key, and dd knows how to bring a file to the medium. An input that
# is no vmcore makes makedumpfile fail in its own words with status 1; a program that cannot run
# fails in other ways.
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
