# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# The area is a preference: the region grows outside where the area is too small or in use, and is
# in the area again later.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh
# shellcheck source=tests/kernel/guest/pinned-lib.sh
. /guest/pinned-lib.sh

in_area()
{
	start=$((0x$(region | cut -d - -f 1) / 4096))
	first=$(cat $AREA/base_pfn)
	[ "$start" -ge "$first" ] && [ "$start" -lt $((first + $(cat $AREA/count))) ]
}

# It has 192 MiB.
more_than_the_area()
{
	set_mib 256 && ! in_area && size_is 256 && set_mib 0
}

full_area()
{
	eat 64 && set_mib 144 && ! in_area && size_is 144 && set_mib 0 && spit_out 64
}

grows_outside()
{
	set_mib 160 && ! in_area && size_is 160
}

shrinks_outside()
{
	set_mib 48 && ! in_area && size_is 48
}

in_area_again()
{
	let_go
	set_mib 0 && set_mib 160 && in_area
}

all_given_back()
{
	set_mib 0 || return
	cd /sys/kernel/mm/cma/crash_dynamic || return
	[ "$(cat available_pages)" = "$(cat total_pages)" ]
}

ktap_print_header
ktap_set_plan 8
ktap_test_result "more_than_the_area" more_than_the_area
ktap_test_result "full_area" full_area
fill
ktap_test_result "pages_are_pinned" pin
ktap_test_result "grows_outside" grows_outside
figure region "$(region)"
ktap_test_result "shrinks_outside" shrinks_outside
ktap_test_result "in_area_again" in_area_again
ktap_test_result "all_given_back" all_given_back
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
