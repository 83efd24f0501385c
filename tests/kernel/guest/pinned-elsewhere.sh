# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# The area is only preferred: if it is too small or in use, the region grows outside. Later it grows
# in the area again.
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

# The area has 192 MiB.
more_than_the_area()
{
	set_mib 256 && ! in_area && size_is 256 && set_mib 0
}

full_area()
{
	take_from_area 64 && set_mib 144 && ! in_area && size_is 144 && set_mib 0 && return_to_area 64
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
	unpin
	set_mib 0 && set_mib 160 && in_area
}

all_freed()
{
	set_mib 0 || return
	area_is_whole
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
ktap_test_result "all_freed" all_freed
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
