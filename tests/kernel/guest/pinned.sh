# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Pages in the way that cannot be moved, and no other place: growing fails, and the region stays.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh
# shellcheck source=tests/kernel/guest/pinned-lib.sh
. /guest/pinned-lib.sh

kept()
{
	before=$(region)
	figure region "$before"
	refused 160 "Cannot allocate memory" && size_is 32 && [ -n "$(region)" ] || return
	# At the start of the area there is room for both; elsewhere the old one is given up, and had
	# back in any place.
	[ $((0x${before%-*} / 4096)) != "$(cat $AREA/base_pfn)" ] || [ "$(region)" = "$before" ]
}

grows_when_let_go()
{
	let_go
	set_mib 160
}

ktap_print_header
ktap_set_plan 5
ktap_test_result "small_region" set_mib 32
fill
ktap_test_result "pages_are_pinned" pin
ktap_test_result "region_is_kept" kept
ktap_test_result "grows_when_let_go" grows_when_let_go
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
