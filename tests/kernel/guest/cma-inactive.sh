# crashkernel=,cma in an area that crosses the border of ZONE_MOVABLE.
. /guest/lib.sh

ktap_print_header
ktap_set_plan 2
ktap_test_result "not_activated" sh -c 'dmesg | grep -q "CMA area crashkernel could not be activated"'
ktap_test_result "no_range" test ! -s $KEXEC/crash_cma_ranges
ktap_finished
