# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# While a crash kernel is loaded, by either system call, the region cannot change.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

all_refused()
{
	refused 0 "No such file" && refused 32 "No such file" &&
	refused 128 "No such file" && refused 4096 "No such file" &&
	size_is 96
}

loading_without_a_region_fails()
{
	set_mib 0 && ! load -s 2>/dev/null
}

grows_after_unload()
{
	set_mib 0 && set_mib 128
}

ktap_print_header
ktap_set_plan 10
ktap_test_result "loading_without_a_region_fails" loading_without_a_region_fails
for call in -s -c; do
	set_mib 0 && set_mib 96
	ktap_test_result "load$call" load $call
	ktap_test_result "refused$call" all_refused
	ktap_test_result "unload$call" unload $call
	ktap_test_result "grow_after_unload$call" grows_after_unload
done
ktap_test_result "free" set_mib 0
ktap_finished
