# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Pages in the way that cannot be moved, and no other place: growing fails, and works later.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh
# shellcheck source=tests/kernel/guest/pinned-lib.sh
. /guest/pinned-lib.sh

grows_when_let_go()
{
	let_go
	set_mib 160
}

nothing_is_there()
{
	size_is 0 && [ -z "$(region)" ]
}

ktap_print_header
ktap_set_plan 5
fill
ktap_test_result "pages_are_pinned" pin
ktap_test_result "refused" refused 160 "Cannot allocate memory"
ktap_test_result "nothing_is_there" nothing_is_there
ktap_test_result "grows_when_let_go" grows_when_let_go
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
