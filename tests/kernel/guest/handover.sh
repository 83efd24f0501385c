# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# A kernel that can hand over memory (kho=on) reserves a region outside of its scratch areas. Then it
# starts the next kernel with a handover, which runs handed-over.sh.
# shellcheck source=tests/kernel/guest/handover-lib.sh
. /guest/handover-lib.sh

# The image of this guest, which the kernel keeps because of retain_initrd.
next_kernel()
{
	kexec -s -l /boot/vmlinuz --initrd=/sys/firmware/initrd \
		--command-line="$(sed 's/test=handover/test=handed-over/' /proc/cmdline)"
}

# So much that it lies outside of the area, too.
takes_the_most()
{
	set_mib 0 || return
	for size in 448 384 320 256 208; do
		set_mib "$size" || continue
		figure largest "$size"
		region_is_outside_of_scratch
		return
	done
	figure largest "none: ${error##*: }"
	return 1
}

total=$(meminfo CmaTotal)
figure CmaTotal "${total:-none}"
figure scratch_mib "$(scratch_mib)"
scratch | sed 's/^/# scratch area: /'

ktap_print_header
ktap_set_plan 7
ktap_test_result "handover_is_on" grep -q 0x $KHO/out/scratch_len
ktap_test_result "takes_64" takes 64
ktap_test_result "takes_much" takes_the_most
set_mib 0
ktap_test_result "takes_96" takes 96
ktap_test_result "loads_crash_kernel" load -s
ktap_test_result "no_warning" no_warning
ktap_test_result "loads_next_kernel" next_kernel
kexec -e
echo "Bail out! the next kernel was not started"
