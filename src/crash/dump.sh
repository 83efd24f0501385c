# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# The stages on the stick: the user's script, the log, the memory, and the new name.
# shellcheck disable=SC2034,SC2153,SC2154 # lib.sh says where variables come from; some are used in other files

# --- the user's script ------------------------------------------------------------------

run_script() {
	[ -n "$SCRIPT" ] || return 0
	stage "running the script"
	busybox --install -s /bin # only scripts need the links
	allowed=$(cat "$TMP/patience")
	[ $((SCRIPT_WAIT + 10)) -le "$allowed" ] || echo $((SCRIPT_WAIT + 10)) >"$TMP/patience"
	(cd / && exec setsid timeout -k 2 "$SCRIPT_WAIT" "$SCRIPT" "$STICK" </dev/null >"$KMSG" 2>&1) &
	script=$!
	wait "$script"
	status=$?
	kill -9 "-$script" 2>/dev/null # and processes that it left behind
	tick # first: the script may have run for longer than is allowed from now on
	echo "$allowed" >"$TMP/patience"
	[ "$status" -eq 0 ] || say "the script ended with status $status; going on"
}

# --- the dump ---------------------------------------------------------------------------

# Sets DUMP, a new directory whose name ends in .partial until the dump is complete. Creating it
# proves that the stick is writable.
open_dump_directory() {
	MINE=$STICK/tinykdump/$MACHINE
	for link in "$STICK/tinykdump" "$MINE"; do
		[ ! -L "$link" ] || leave_unusable "the stick has a link where the dumps should be"
	done
	make_room "$SPARE"
	FINAL_NAME=$(free_name "$MINE/$(date -u +%Y%m%dT%H%M%SZ)")
	DUMP=$FINAL_NAME.partial
	if ! { mkdir -p "$MINE" && mkdir "$DUMP" && to_stick "$DUMP/SHA256SUMS"; } 2>"$TMP/open" </dev/null
	then
		leave_unusable "cannot write to the stick: $(sed -n 1p "$TMP/open")"
	fi
	echo "$DUMP" >"$TMP/dump"
}

# free_name PATH: PATH, or if there are dumps of that time, PATH-N with a number after theirs. Without
# a clock the same time can come twice, and a number that was free again would be that of an old dump.
free_name() {
	number=
	for there in "$1" "$1".partial "$1"-*; do
		[ -e "$there" ] || continue
		there=${there#"$1"} there=${there#-} there=${there%.partial}
		case $there in
		0* | *[!0-9]* | ?????????*) ;; # not ours
		*) [ "${there:-0}" -lt "${number:-0}" ] || number=$((${there:-0} + 1)) ;;
		esac
	done
	echo "$1${number:+-$number}"
}

# to_stick FILE: append standard input to FILE; succeeds when it is on the medium.
to_stick() {
	dd bs=65536 of="$1" oflag=append conv=notrunc,fsync
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
	makedumpfile --dump-dmesg -f "$VMCORE" "$TMP/dmesg" >"$TMP/messages" ||
		{ rm -f "$TMP/dmesg"; return 1; } # it takes memory
	find_test <"$TMP/dmesg" >"$TMP/test"
	cat "$TMP/dmesg"
	rm -f "$TMP/dmesg"
}

# The id that `tinykdump test` wrote to the log before the crash.
find_test() {
	sed -n 's/.*tinykdump: test \([0-9a-f]\{16\}\)$/\1/p' | tail -n 1
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
	# shellcheck disable=SC2086 # OCB is an option or nothing
	gpg --homedir "$TMP" --no-options --batch --no-tty --quiet --no-autostart \
		--no-keyring --trust-model always --compress-algo none $OCB \
		--faked-system-time "$KEY_TIME!" --ignore-time-conflict --ignore-valid-from \
		--recipient-file /etc/tinykdump.key --encrypt
}

# fail CAUSE MESSAGE: record why a stream is incomplete. CAUSE is read, gpg, stick or full. One
# failure can have several reporters.
fail() {
	grep -qsxF "$2" "$TMP/fail.$1" || echo "$2" >>"$TMP/fail.$1"
}

# reached END: the shell that runs a program (read, gpg) or writes a part (part) or all of them (stick)
# got to its end. One that is killed, for example while memory is short, records no failure.
reached() {
	: >"$TMP/end.$1"
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
		rm -f "$TMP/end.part"
		# Keep the file open: the kernel reports its write errors only as long as it is.
		# shellcheck disable=SC2094 # nothing is written through it
		sum=$({ write_part "$DUMP/$file"; } 7>>"$DUMP/$file" | sha256sum)
		if [ ! -s "$DUMP/$file" ]; then
			rm -f "$DUMP/$file"
			[ "$part" -gt 0 ] || has_failed read || fail read "$1 is empty"
			[ ! -e "$TMP/end.part" ] || reached stick
			return
		fi
		# A part without a sum is incomplete; restore reports it.
		has_failed full stick gpg read && return
		# The sum is 64 digits, two spaces, and the name of standard input.
		if [ ! -e "$TMP/end.part" ] || [ "${#sum}" -ne 67 ]; then
			fail stick "writing $file: a process was killed"
			return
		fi
		if ! echo "${sum%% *}  $file" | to_stick "$DUMP/SHA256SUMS" 2>"$TMP/dd"; then
			fail stick "writing SHA256SUMS: $(sed -n 1p "$TMP/dd")"
			return
		fi
		part=$((part + 1))
	done
	reached stick
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
	end_sync "$1" && reached part
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
	[ -n "$syncing" ] || return 0
	look_at_clock
	began=$CLOCK
	wait "$syncing" || { fail stick "writing ${1##*/}: $(sed -n 1p "$TMP/fsync")"; return 1; }
	look_at_clock
	echo $((CLOCK - began)) >>"$TMP/waits"
}

# Sets CLOCK, in hundredths of a second. The 1 keeps 08 from being an octal number.
look_at_clock() {
	read -r CLOCK _ </proc/uptime
	CLOCK=$((${CLOCK%.*} * 100 + 1${CLOCK#*.} - 100))
}

# How long the stick kept the dump waiting, in seconds.
waited_for_stick() {
	waited=0
	while read -r each; do
		waited=$((waited + each))
	done <"$TMP/waits"
	printf '%d.%02d s' $((waited / 100)) $((waited % 100))
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
	rm -f "$TMP"/fail.* "$TMP"/end.* "$TMP/errors"
	show_progress "$1" &
	progress=$!
	{ { "$2" 2>"$TMP/errors" || fail read "$2: $(last_line "$TMP/errors")"; } && reached read; } |
		{ { encrypt 2>"$TMP/gpg" || fail gpg "gpg (status $?): $(tail -n 1 "$TMP/gpg")"; } && reached gpg; } |
		write_parts "$1${KEY_TIME:+.gpg}"
	kill "$progress"
	for end in read gpg stick; do
		[ -e "$TMP/end.$end" ] || has_failed full stick gpg read || fail "$end" "a process was killed"
	done
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
	save dmesg.txt read_log || {
		WITHOUT=" without the log"
		stage "could not save the log: $FAILURE; going on"
	}
	[ -s "$TMP/test" ] || return 0
	stage "test $(cat "$TMP/test")"
	note_test <"$TMP/test"
}

# Add a line to the file TEST of a crash on purpose: first its id, then when the dump was saved. It
# is not encrypted, so that nobody needs the key to see that the test came out.
note_test() {
	to_stick "$DUMP/TEST" 2>"$TMP/dd" || say "writing TEST: $(sed -n 1p "$TMP/dd")"
}

# If makedumpfile fails, try less filtering, then a plain copy. If the stick is full, try more
# filtering.
save_memory() {
	stage "saving the memory"
	: >"$TMP/waits" # not those of the log, or of a try before the stick was pulled out
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
	case $CAUSE in
	full | stick) leave_unusable "could not save the memory: $FAILURE" ;;
	*) die "could not save the memory: $FAILURE" ;;
	esac
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
	stage "the memory is written; waited $(waited_for_stick) of that for the stick"
	note_stages
	say "the dump takes $(du -m "$DUMP" | cut -f1) MiB"
	[ ! -s "$TMP/test" ] || date +%s | note_test
	mv "$DUMP" "$FINAL_NAME" 2>"$TMP/mv" || die "renaming $DUMP: $(tail -n 1 "$TMP/mv")"
	to_stick "$FINAL_NAME/SHA256SUMS" </dev/null 2>"$TMP/dd" ||
		die "renaming $DUMP: $(sed -n 1p "$TMP/dd")"
	touch "$TMP/saved"
	stage "saved as ${FINAL_NAME#"$STICK"/}$WITHOUT"
}

# Write the file STAGES, by which a slow stick can be told from a slow kernel. It is not encrypted, so
# it does not say which kernel it was.
note_stages() {
	sed 's/crash kernel .* is up.*/the crash kernel is up/' "$TMP/stages" |
		to_stick "$DUMP/STAGES" 2>"$TMP/dd" || say "writing STAGES: $(sed -n 1p "$TMP/dd")"
}

# Keep KEEP complete dumps of this machine.
remove_old_dumps() {
	[ "$KEEP" -gt 0 ] || return 0
	# shellcheck disable=SC2046 # names
	set -- $(old_dumps)
	while [ "$#" -ge "$KEEP" ]; do
		say "removing the old dump $1"
		remove_dump "$1"
		shift
	done
}
