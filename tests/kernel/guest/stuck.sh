# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# A file server hangs while pages of the area are under writeback: growing waits for it, without
# the kexec lock.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

# Seconds in which growing would have worked or failed.
WAIT=15

serve()
{
	modprobe fuse
	mkdir /stuck
	stuck-server /stuck &
	server=$!
	until grep -q "^stuck /stuck" /proc/mounts; do
		sleep 0.1
	done
	# Otherwise the kernel throttles the writer too early.
	bdi=/sys/class/bdi/$(awk '$5 == "/stuck" { print $3 }' /proc/self/mountinfo)
	echo 0 > "$bdi/strict_limit"
	echo 100 > "$bdi/max_ratio"
	echo 80 > /proc/sys/vm/dirty_ratio
	echo 70 > /proc/sys/vm/dirty_background_ratio
	# The close waits for pages that the kernel has begun to write, and then leaves the rest dirty:
	# let it not begin earlier, however slow the machine is.
	echo 60000 > /proc/sys/vm/dirty_writeback_centisecs
}

# Fill the other memory, so that new pages are in the area. 32 MiB of it stay free, for the images and
# for what the kernel keeps of the pages of each in its per-CPU lists.
fill()
{
	mount -o remount,size=90% /tmp
	dd if=/dev/zero of=/tmp/ballast bs=1M count=$(($(meminfo MemAvailable) / 1024 - 262)) 2>/dev/null
}

state_of()
{
	sed -n 's/^State:\t\(.\).*/\1/p' "/proc/$1/status"
}

# At the close of the file, the kernel writes back all its pages at once, and the server takes none
# of them.
server_stops()
{
	dd if=/dev/zero of=/stuck/file bs=1M count=100 2>/dev/null &
	writer=$!
	for _ in $(seq 600); do
		[ "$(state_of $server)" = T ] && [ "$(meminfo Writeback)" -gt 90000 ] && return
		sleep 0.1
	done
	return 1
}

growing_waits()
{
	echo $((160 * MIB)) > $KEXEC/crash_size &
	grower=$!
	sleep $WAIT
	[ "$(state_of "$grower")" = D ]
}

reading_works()
{
	size_is 0 && grep -qx 0 $KEXEC/crash_loaded && [ -z "$(region)" ]
}

# Loads a normal image, because there is no region: kexec -l needs the lock, too.
loading_works()
{
	kexec "$1" -l /boot/vmlinuz --initrd=/boot/crash.img --command-line=quiet &&
	grep -qx 1 $KEXEC/loaded && kexec "$1" -u
}

memory_is_available()
{
	dd if=/dev/zero of=/tmp/more bs=1M count=8 2>/dev/null && rm /tmp/more
}

# The writer cannot be frozen. Without CONFIG_PM_DEBUG, nobody can suspend for a test.
can_suspend()
{
	[ -e /sys/power/pm_test ] && echo freezer > /sys/power/pm_test &&
	echo 3000 > /sys/power/pm_freeze_timeout
}

# The kernel shows the stack of each process that does not freeze; the grower is a shell.
suspend_fails()
{
	! echo mem > /sys/power/state 2>/dev/null && dmesg | grep -q "task:sh  *state:D"
}

suspend_works()
{
	echo mem > /sys/power/state
}

test_suspend()
{
	if can_suspend; then
		ktap_test_result "$1" "$1"
	else
		ktap_test_skip "$1"
	fi
}

still_waits()
{
	[ "$(state_of "$grower")" = D ]
}

server_goes_on()
{
	kill -CONT $server
	wait "$writer"
}

grows_afterwards()
{
	wait "$grower" && size_is 160
}

killed_writer_waits()
{
	kill -9 "$grower"
	sleep 2
	still_waits
}

killed_writer_reserves_nothing()
{
	! wait "$grower" && size_is 0
}

ktap_print_header
ktap_set_plan 18
serve
fill
ktap_test_result "server_stops" server_stops
ktap_test_result "growing_waits" growing_waits
ktap_test_result "reading_works" reading_works
ktap_test_result "loading_works-s" loading_works -s
ktap_test_result "loading_works-c" loading_works -c
ktap_test_result "other_writer_is_refused" refused 0 "busy"
ktap_test_result "memory_is_available" memory_is_available
test_suspend suspend_fails
ktap_test_result "still_waits" still_waits
ktap_test_result "server_goes_on" server_goes_on
ktap_test_result "grows_afterwards" grows_afterwards
test_suspend suspend_works
set_mib 0
ktap_test_result "server_stops_again" server_stops
ktap_test_result "growing_waits_again" growing_waits
ktap_test_result "killed_writer_waits" killed_writer_waits
ktap_test_result "server_goes_on_again" server_goes_on
ktap_test_result "killed_writer_reserves_nothing" killed_writer_reserves_nothing
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
