# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# A suspend freezes a process that is growing the region, and the process goes on afterwards: the
# suspend does not fail, nor does the write.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

# Full memory makes growing slow.
fill()
{
	mount -o remount,size=90% /tmp
	dd if=/dev/zero of=/tmp/ballast bs=1M count=$(($(meminfo MemAvailable) / 1024 - 320)) 2>/dev/null
}

# Print the number of each write's error, until it is told to stop. New pages take the place of the
# region each time, so there is something to migrate.
write_on()
{
	while [ ! -e /tmp/enough ]; do
		dd if=/dev/zero of=/tmp/new bs=1M count=128 2>/dev/null
		mv /tmp/new /tmp/last
		timed-write $KEXEC/crash_size $((128 * MIB)) | cut -d ' ' -f 2
		set_mib 0
	done > /tmp/errors
}

# Freezes all processes, thaws them, and does no more.
suspends()
{
	for _ in $(seq 30); do
		echo mem > /sys/power/state || return
		sleep 0.3
	done
}

writes_go_on()
{
	touch /tmp/enough
	wait $writer
	figure writes "$(grep -c . /tmp/errors)"
	# 12 is ENOMEM: one attempt can fail.
	grep -q "^0$" /tmp/errors && ! grep -qv "^0$\|^12$" /tmp/errors
}

echo freezer > /sys/power/pm_test
echo 0 > /sys/module/suspend/parameters/pm_test_delay
fill
write_on &
writer=$!

ktap_print_header
ktap_set_plan 4
ktap_test_result "suspends" suspends
ktap_test_result "writes_go_on" writes_go_on
ktap_test_result "all_freed" size_is 0
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
figure freezes "$(dmesg | grep -c 'Freezing user space processes completed')"
ktap_finished
