# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# A crash kernel that is loaded survives hibernation, and the pages of its region with the keys of
# an encrypted disk are not in the image on the disk.
#
# The key is known to crash-key only, so that no script and no shell has it in memory. The kernel has
# one copy of its own, which it keeps after a crash kernel was loaded.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

CONFIG=/sys/kernel/config/crash_dm_crypt_keys

resume_device()
{
	modprobe -a virtio_pci virtio_blk
	mkswap /dev/vda > /dev/null && swapon /dev/vda
}

# The image has the key from the keyring, which is then revoked.
loads_with_key()
{
	mount -t configfs configfs /sys/kernel/config
	crash-key add && mkdir $CONFIG/one && echo test:crash-key > $CONFIG/one/description &&
	set_mib 96 && load -s && crash-key revoke
}

hibernates()
{
	# Writes the image, reads it, and continues with it, without a reboot in between.
	echo test_resume > /sys/power/disk
	echo disk > /sys/power/state
}

ktap_print_header
ktap_set_plan 5
ktap_test_result "resume_device" resume_device
ktap_test_result "loads_with_key" loads_with_key
before=$(region)
ktap_test_result "hibernates" hibernates
dmesg | grep -i "hibernation" | sed 's/^/# /'
figure copies_of_the_key "$(crash-key count /dev/vda)"
ktap_test_result "same_region" test "$(region)" = "$before"
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
echo c > /proc/sysrq-trigger
