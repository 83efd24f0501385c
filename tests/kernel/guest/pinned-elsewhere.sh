# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Pages of the area cannot be moved: the region grows outside, and is in the area again later.
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

# From 64 to 128 of 192 MiB: no room for both of them, and the old one is not given up.
leaves_a_full_area()
{
	eat 64 && set_mib 64 && spit_out 64 && in_area || return
	set_mib 144 && ! in_area && size_is 144 && set_mib 0
}

grows_outside()
{
	set_mib 160 && ! in_area && size_is 160
}

# To a new place: there has to be room for the old region and the new one.
grows_from_outside()
{
	rm /tmp/ballast
	set_mib 176 && ! in_area && size_is 176
}

shrinks_outside()
{
	set_mib 48 && ! in_area && size_is 48
}

all_given_back()
{
	set_mib 0 || return
	cd /sys/kernel/mm/cma/crash_dynamic || return
	[ "$(cat available_pages)" = "$(cat total_pages)" ]
}

ktap_print_header
ktap_set_plan 10
ktap_test_result "leaves_a_full_area" leaves_a_full_area
ktap_test_result "small_region" set_mib 32
ktap_test_result "in_area" in_area
fill
ktap_test_result "pages_are_pinned" pin
ktap_test_result "grows_outside" grows_outside
figure region "$(region)"
ktap_test_result "grows_from_outside" grows_from_outside
ktap_test_result "shrinks_outside" shrinks_outside
let_go
set_mib 160
ktap_test_result "in_area_again" in_area
ktap_test_result "all_given_back" all_given_back
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
