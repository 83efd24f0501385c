# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# crashkernel=,cma takes several ranges: sysfs shows all areas.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

ktap_print_header
ktap_set_plan 2
ktap_test_result "two_ranges" test "$(wc -l < $KEXEC/crash_cma_ranges)" -ge 2
ktap_test_result "two_directories" test "$(find /sys/kernel/mm/cma -maxdepth 1 -name "*crashkernel*" | wc -l)" -ge 2
ktap_finished
