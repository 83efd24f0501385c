# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Prints everything that a program can see of a reservation made at boot, before and after it
# shrinks, to compare kernels.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

look()
{
	figure "iomem_$1" "$(sed -n 's/^ *\(.*\) : Crash kernel/\1/p' /proc/iomem | tr '\n' ' ')"
	figure "size_$1" "$(cat $KEXEC/crash_size)"
	figure "cma_ranges_$1" "$(cat $KEXEC/crash_cma_ranges 2>/dev/null | tr '\n' ' ')"
}

try()
{
	set_mib "$2" && error="none"
	figure "answer_$1" "${error##*: }"
	look "$1"
}

total=$(meminfo MemTotal)
figure MemTotal "$total"
look boot
half=$(($(get_mib) / 2))
# Larger than half of the memory below 4 GiB, which the series allows without a reservation.
try larger 4096
try half $half
try larger_again $((half * 2))
try nothing 0
figure returned_kb $(($(meminfo MemTotal) - total))
