# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# What happens when growing does not work out: the old region stays.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

same_region_and()
{
	before=$(region)
	"$@" && [ "$(region)" = "$before" ]
}

kept_without_room()
{
	same_region_and refused 128 "Cannot allocate memory"
}

# More than the area has beside the region, so that goes first, and comes back.
had_back_after_replacing()
{
	refused 144 "Cannot allocate memory" && size_is 64 && [ -n "$(region)" ]
}

# 112 MiB fit neither below the region, from 48 to 112 of the 192 MiB, nor above, but in place,
# although what is below is free.
extends_where_it_is()
{
	set_mib 0 && eat 48 && set_mib 64 && spit_out 48 || return
	before=$(region)
	figure region "$before"
	[ $((0x${before%-*} / 4096)) = $(($(cat $AREA/base_pfn) + 48 * 256)) ] || return
	set_mib 112 && after=$(region) && [ "${after%-*}" = "${before%-*}" ]
}

# With memory full, growing takes long enough to get in its way.
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

# Killed at any time: a region of one of the two sizes, and no memory lost.
killed()
{
	for tenth in 0 1 2 3 0 1 2 3 0 1 2 3; do
		echo $((160 * MIB)) > $KEXEC/crash_size &
		sleep 0.0$tenth
		kill -9 $!
		wait
		size_is 0 || size_is 160 || return
		set_mib 0 || return
	done 2>/dev/null
	cd /sys/kernel/mm/cma/crash_dynamic || return
	[ "$(cat available_pages)" = "$(cat total_pages)" ]
}

# The old region has to go first where the new one does not fit beside it: here
# it lies from 100 to 164 of the 192 MiB. It comes back although the writer is dead.
killed_while_replacing()
{
	for tenth in 0 1 2 3 0 1 2 3; do
		set_mib 0 && eat 100 && set_mib 64 && spit_out 100 || return
		echo $((144 * MIB)) > $KEXEC/crash_size &
		sleep 0.0$tenth
		kill -9 $!
		wait
		size_is 64 || size_is 144 || return
	done 2>/dev/null
	set_mib 0
}

ktap_print_header
ktap_set_plan 11
ktap_test_result "grow" set_mib 64
# Of 192 MiB, behind the region: 28 are left there.
ktap_test_result "area_is_taken" eat 100
ktap_test_result "kept_without_room" kept_without_room
ktap_test_result "had_back_after_replacing" had_back_after_replacing
ktap_test_result "area_is_free" spit_out 100
ktap_test_result "extends_where_it_is" extends_where_it_is
ktap_test_result "grow_then" set_mib 128
set_mib 0
fill
ktap_test_result "second_writer_is_refused" second_writer_is_refused
set_mib 0
ktap_test_result "killed" killed
ktap_test_result "killed_while_replacing" killed_while_replacing
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
