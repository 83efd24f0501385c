# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# PID 1: it supervises the child that saves the dump, and takes the final action. It never touches
# the stick.
# shellcheck disable=SC2034,SC2154 # lib.sh says where variables come from; some are used in other files

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

# explain STATUS: log the failure of a child that logged none, for example after an OOM kill or an
# error of the shell.
explain() {
	[ -e "$TMP/failed" ] && return
	reason=$(last_line "$TMP/shell")
	stage "failed: the dump ended with status $1${reason:+: $reason}"
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
	# A driver that waits for its device can block reboot and poweroff; sysrq b calls no driver.
	[ "$FINAL_ACTION" = halt ] || { sleep 30 && echo b >"$SYSRQ"; } &
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
