# crashkernel=,cma in more than one range: all areas are in sysfs.
. /guest/lib.sh

ktap_print_header
ktap_set_plan 2
ktap_test_result "two_ranges" test "$(wc -l < $KEXEC/crash_cma_ranges)" -ge 2
ktap_test_result "two_directories" test "$(ls /sys/kernel/mm/cma 2>/dev/null | grep -c crashkernel)" -ge 2
ktap_finished
