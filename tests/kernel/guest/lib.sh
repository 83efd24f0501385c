# SPDX-License-Identifier: GPL-2.0-or-later
# What the scripts of the guests share.
# shellcheck shell=sh

# shellcheck source=/dev/null # of the kernel
. /selftests/kselftest/ktap_helpers.sh

# The kernel's own splits the arguments into words once more: "sh -c 'a | b'" would run "sh -c a".
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

KEXEC=/sys/kernel/kexec
MIB=1048576

# Of the kernel's command line: NAME=VALUE.
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

# START-END of the region, in hexadecimal.
region()
{
	sed -n 's/^ *\([0-9a-f]*-[0-9a-f]*\) : Crash kernel$/\1/p' /proc/iomem
}

AREA=/sys/kernel/debug/cma/crash_dynamic

# Somebody else takes that many MiB of the area, the lowest that are free.
eat()
{
	echo $(($1 * 256)) > $AREA/alloc
}

spit_out()
{
	echo $(($1 * 256)) > $AREA/free
}

# By system call: -s is kexec_file_load(), -c is kexec_load().
load()
{
	kexec "$1" -p /boot/vmlinuz --initrd=/boot/crash.img \
		--command-line="console=ttyS0 panic=-1 no_timer_check loglevel=5 nr_cpus=1 region=$(region)"
}

unload()
{
	kexec "$1" -p -u
}

# One figure for the host: FIGURE name value.
figure()
{
	echo "FIGURE $1 $2"
}

meminfo()
{
	awk -v key="$1:" '$1 == key { print $2 }' /proc/meminfo
}
