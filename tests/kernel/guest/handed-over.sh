# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# A kernel that was started with a handover declares no area. It can reserve a region, and the crash
# kernel boots there.
# shellcheck source=tests/kernel/guest/handover-lib.sh
. /guest/handover-lib.sh

says_why()
{
	dmesg | grep -q "no area for the crash kernel in the memory that was handed over"
}

ktap_print_header
ktap_set_plan 8
ktap_test_result "was_handed_over" test -e $KHO/in/fdt
ktap_test_result "no_area" test ! -d /sys/kernel/mm/cma/crash_dynamic
case $(parameter crashkernel) in
	0) ktap_test_skip "says_why: no area was wanted" ;;
	*) ktap_test_result "says_why" says_why ;;
esac
ktap_test_result "nothing_is_reserved" size_is 0
ktap_test_result "takes_64" takes 64
ktap_test_result "gives_back" set_mib 0
ktap_test_result "takes_96" takes 96
ktap_test_result "no_warning" no_warning
figure handed_over_region "$(region)"
load -s || exit 1
echo c > /proc/sysrq-trigger
