# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Sizes that are refused; and no memory is lost if the writer is killed.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

same_region_and()
{
	before=$(region)
	"$@" && [ "$(region)" = "$before" ]
}

# A region can grow only from 0.
larger_is_refused()
{
	same_region_and refused 128 "Invalid argument" && size_is 64
}

without_capability()
{
	set_mib 0 || return
	error=$(without-boot-capability timed-write $KEXEC/crash_size $((64 * MIB)))
	[ "$(echo "$error" | cut -d ' ' -f 2)" = 1 ] && size_is 0
}

# Anybody who may write the file may shrink the region, as without the series.
shrinks_without_capability()
{
	set_mib 64 && without-boot-capability timed-write $KEXEC/crash_size $((32 * MIB)) && size_is 32
}

# The area has 92 of 192 MiB left, and there is no memory outside.
no_room()
{
	set_mib 0 && take_from_area 100 && refused 144 "Cannot allocate memory" && size_is 0 && [ -z "$(region)" ]
}

# Full memory makes growing so slow that another process can interrupt it.
fill()
{
	share=$(($(meminfo MemAvailable) * 60 / 100 / 1024))
	dd if=/dev/zero of=/tmp/ballast bs=1M count=$share 2>/dev/null
	cp /tmp/ballast /tmp/again 2>/dev/null
}

second_writer_is_refused()
{
	while [ ! -e /tmp/enough ]; do
		set_mib 96
		set_mib 0
	done &
	status=1
	for _ in $(seq 500); do
		refused 32 "busy" && { status=0; break; }
	done
	touch /tmp/enough
	wait
	return $status
}

# stopped SIGNAL: kill the writer at different times. The region has one of the two sizes, and no
# memory is lost.
stopped()
{
	for tenth in 0 1 2 3 0 1 2 3 0 1 2 3; do
		echo $((160 * MIB)) > $KEXEC/crash_size &
		sleep 0.0$tenth
		kill "$1" $!
		wait
		size_is 0 || size_is 160 || return
		set_mib 0 || return
	done 2>/dev/null
	area_is_whole
}

ktap_print_header
ktap_set_plan 10
ktap_test_result "grow" set_mib 64
ktap_test_result "larger_is_refused" larger_is_refused
ktap_test_result "without_capability" without_capability
ktap_test_result "shrinks_without_capability" shrinks_without_capability
ktap_test_result "no_room" no_room
ktap_test_result "area_is_free" return_to_area 100
fill
ktap_test_result "second_writer_is_refused" second_writer_is_refused
set_mib 0
ktap_test_result "killed" stopped -KILL
ktap_test_result "terminated" stopped -TERM
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
