# SPDX-License-Identifier: GPL-2.0-or-later
# Functions for the scripts of the guests.
# shellcheck shell=sh

# shellcheck source=/dev/null # from the kernel source
. /selftests/kselftest/ktap_helpers.sh

# The kernel's own function splits the arguments into words again: "sh -c 'a | b'" would run
# "sh -c a".
ktap_test_result()
{
	description=$1
	shift
	if "$@"; then
		ktap_test_pass "$description"
	else
		ktap_test_fail "$description"
	fi
}

# The directory with loaded, crash_loaded, crash_size and crash_size_max. Before Linux 6.19, these are
# /sys/kernel/kexec_loaded and so on.
KEXEC=/sys/kernel/kexec
if [ ! -d $KEXEC ]; then
	KEXEC=/run/kexec
	mkdir -p $KEXEC
	for file in /sys/kernel/kexec_*; do
		ln -sf "$file" "$KEXEC/${file#*kexec_}"
	done
fi
MIB=1048576

# parameter NAME: print the value of NAME=VALUE on the kernel's command line.
parameter()
{
	sed -n "s/.*\\<$1=\\([a-z0-9-]*\\).*/\\1/p" /proc/cmdline
}

set_mib()
{
	error=$(echo $(($1 * MIB)) | dd of=$KEXEC/crash_size 2>&1)
}

get_mib()
{
	echo $(($(cat $KEXEC/crash_size) / MIB))
}

size_is()
{
	[ "$(cat $KEXEC/crash_size)" = $(($1 * MIB)) ]
}

refused()
{
	! set_mib "$1" && case $error in *"$2"*) true ;; *) false ;; esac
}

# Print START-END of the region, in hexadecimal.
region()
{
	sed -n 's/^ *\([0-9a-f]*-[0-9a-f]*\) : Crash kernel$/\1/p' /proc/iomem
}

AREA=/sys/kernel/debug/cma/crash_dynamic

area_is_whole()
{
	[ "$(cat $AREA/used)" = 0 ]
}

# take_from_area MIB: allocate that much of the area, at its start.
take_from_area()
{
	echo $(($1 * 256)) > $AREA/alloc
}

return_to_area()
{
	echo $(($1 * 256)) > $AREA/free
}

# load -s uses kexec_file_load(), load -c uses kexec_load().
load()
{
	kexec "$1" -p /boot/vmlinuz --initrd=/boot/crash.img \
		--command-line="$(grep -o 'console=[A-Za-z0-9]*' /proc/cmdline) panic=-1 no_timer_check loglevel=5 nr_cpus=1 region=$(region)"
}

unload()
{
	kexec "$1" -p -u
}

# figure NAME VALUE: print a figure for the host.
figure()
{
	echo "FIGURE $1 $2"
}

meminfo()
{
	awk -v key="$1:" '$1 == key { print $2 }' /proc/meminfo
}
