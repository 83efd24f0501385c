# SPDX-License-Identifier: GPL-2.0-or-later
# Functions for the scripts of a kexec handover (KHO).
# shellcheck shell=sh
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

KHO=/sys/kernel/debug/kho

# Print start and size of each scratch area, in which the next kernel starts.
scratch()
{
	paste $KHO/out/scratch_phys $KHO/out/scratch_len
}

scratch_mib()
{
	total=0
	while read -r size; do
		total=$((total + size / MIB))
	done < $KHO/out/scratch_len
	echo $total
}

# The next kernel would overwrite a crash kernel there.
region_is_outside_of_scratch()
{
	[ -n "$(region)" ] || return
	start=$((0x$(region | cut -d - -f 1)))
	end=$((0x$(region | cut -d - -f 2)))
	scratch | while read -r base size; do
		[ $end -lt $((base)) ] || [ $start -ge $((base + size)) ] || exit 1
	done
}

takes()
{
	set_mib "$1" && size_is "$1" && region_is_outside_of_scratch
}

no_warning()
{
	[ "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0 ]
}
