# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Pages in the area cannot be moved, and there is no memory outside: growing fails until they are
# freed.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh
# shellcheck source=tests/kernel/guest/pinned-lib.sh
. /guest/pinned-lib.sh

grows_after_unpin()
{
	unpin
	set_mib 160
}

no_region()
{
	size_is 0 && [ -z "$(region)" ]
}

ktap_print_header
ktap_set_plan 5
fill
ktap_test_result "pages_are_pinned" pin
ktap_test_result "refused" refused 160 "Cannot allocate memory"
ktap_test_result "no_region" no_region
ktap_test_result "grows_after_unpin" grows_after_unpin
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
