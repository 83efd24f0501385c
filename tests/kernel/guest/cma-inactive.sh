# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# The area of crashkernel=,cma crosses the border of ZONE_MOVABLE.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

not_activated()
{
	dmesg | grep -q "CMA area crashkernel could not be activated"
}

no_range()
{
	[ -z "$(cat $KEXEC/crash_cma_ranges)" ]
}

ktap_print_header
ktap_set_plan 2
ktap_test_result "not_activated" not_activated
ktap_test_result "no_range" no_range
ktap_finished
