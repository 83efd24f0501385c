# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# A reservation made at boot works as without the series.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

ktap_print_header
ktap_set_plan 7
ktap_test_result "size_as_on_the_command_line" size_is 128
ktap_test_result "maximum_is_zero" grep -qx 0 $KEXEC/crash_size_max
ktap_test_result "no_area" test ! -d /sys/kernel/mm/cma/crash_dynamic
ktap_test_result "growing_is_refused" refused 256 "Invalid argument"
ktap_test_result "shrinks" set_mib 64
ktap_test_result "growing_back_is_refused" refused 128 "Invalid argument"
ktap_test_result "can_be_freed" set_mib 0
ktap_finished
