# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Without crashkernel=, or with a parameter for the area: nothing is reserved at boot, and a region
# can be reserved later.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

figure MemTotal "$(meminfo MemTotal)"
figure MemAvailable "$(meminfo MemAvailable)"
total=$(meminfo CmaTotal)
figure CmaTotal "${total:-none}"
figure crash_size "$(cat $KEXEC/crash_size)"
figure crash_size_max "$(cat $KEXEC/crash_size_max)"
figure complaints "$(dmesg | grep -c 'crashkernel: ')"
figure iomem_lines "$(grep -c 'Crash kernel' /proc/iomem)"

set_mib 64
figure region "$(region)"
set_mib 0

counts_exactly()
{
	[ -e /sys/kernel/mm/cma/crash_dynamic/available_pages ]
}

# Add up the counters of all CPUs first. Linux 6.12, whose areas have no such file, does not count the
# pages that CPUs hold back; to allocate one page of the area makes them return all others.
cma_free()
{
	if ! counts_exactly && [ -e $AREA/alloc ]; then
		echo 1 > $AREA/alloc
		echo 1 > $AREA/free
	fi
	echo 1 > /proc/sys/vm/stat_refresh
	free=$(meminfo CmaFree)
	echo "${free:-0}" # a kernel without CMA has no such line
}

ROUNDS=${ROUNDS:-$(parameter rounds)}
export ROUNDS
before=$(cma_free)
sh /selftests/kexec/test_crash_resize.sh
result=$?
lost=$((before - $(cma_free)))
# What they held back since then. The selftest compares what was taken and returned.
counts_exactly || [ "${lost#-}" -ge 2048 ] || lost=0
figure CmaFree_lost_kb $lost
exit $result
