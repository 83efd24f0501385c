# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# A kexec handover (KHO) to the same kernel. The area does not count for the size of the scratch
# areas, and the second kernel has none, says so, and takes its region from elsewhere.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

SECOND=/tmp/second.img

has_area()
{
	[ -e /sys/kernel/mm/cma/crash_dynamic ]
}

scratch_bytes()
{
	total=0
	while read -r bytes; do
		total=$((total + bytes))
	done < /sys/kernel/debug/kho/out/scratch_len
	echo $total
}

# What is in the guest's initramfs is in that of the second kernel.
hand_over()
{
	(cd / && find . -xdev | cpio -o -H newc) > $SECOND 2>/dev/null &&
	kexec -l -s /boot/vmlinuz --initrd=$SECOND --command-line="$(cat /proc/cmdline) second=1" &&
	kexec -e
}

was_handed_over()
{
	dmesg | grep -q "found kexec handover data"
}

# Only who would have had one is told.
says_so()
{
	dmesg | grep -q "no area for the crash kernel in the memory that was handed over"
}

is_loaded()
{
	load -s && grep -qx 1 $KEXEC/crash_loaded && unload -s
}

if [ -z "$(parameter second)" ]; then
	figure scratch_mib $(($(scratch_bytes) / MIB))
	if has_area; then
		figure area "$(cat /sys/kernel/mm/cma/crash_dynamic/total_pages) pages"
	fi
	set_mib 64 && is_loaded && set_mib 0 || echo "Bail out! no region in the first kernel"
	hand_over
	exit 1
fi

ktap_print_header
ktap_set_plan 7
ktap_test_result "was_handed_over" was_handed_over
ktap_test_result "no_area" eval "! has_area"
ktap_test_result "says_so" says_so
ktap_test_result "grow" set_mib 64
figure region "$(region)"
ktap_test_result "is_loaded" is_loaded
ktap_test_result "give_back" set_mib 0
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
