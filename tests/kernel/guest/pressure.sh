# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# The region grows while memory is in use; load=KIND on the command line says how:
#
# cache   pages of a file that is larger than memory
# mlock   anonymous memory that is locked
# tmpfs   files that cannot be dropped
# ext4    pages that writers make dirty faster than the disk takes them
# fork    files in tmpfs, and processes that come and go
# direct  files in tmpfs, and writers with O_DIRECT
#
# Pages that were moved away do not come back. So each round begins with new pages, which are where
# the region was.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

WANTED=96
# MiB that stay free for the kernel and the programs
AIR=64

load=$(parameter load)
rounds=$(parameter rounds)

# tinykdump retries for so many seconds.
PATIENCE=60

grow()
{
	timed-write $KEXEC/crash_size $((WANTED * MIB)) "$@"
}

migrated()
{
	awk '$1 == "pgmigrate_success" { print $2 }' /proc/vmstat
}

until_stopped()
{
	while [ ! -e /tmp/stop ]; do
		"$@"
	done >/dev/null 2>&1
}

new_file()
{
	dd if=/dev/zero of="/tmp/new" bs=1M count=$WANTED 2>/dev/null || echo "Bail out! tmpfs is full"
	mv /tmp/new /tmp/last
}

lock_new()
{
	lock-memory $WANTED > /tmp/locked &
	new=$!
	until [ -s /tmp/locked ]; do
		kill -0 $new || { echo "Bail out! memory cannot be locked"; return; }
		sleep 0.02
	done
	rm /tmp/locked
	[ -z "$last" ] || { kill "$last"; wait "$last"; } 2>/dev/null
	last=$new
}

read_on()
{
	dd if=/disk/large of=/dev/null bs=1M count=220 skip=$((220 * ($1 % 3))) 2>/dev/null
}

make_dirty()
{
	dd if=/dev/zero of="/disk/dirty.$1" bs=256k count=800
}

write_direct()
{
	dd if=/dev/zero of="/disk/direct.$1" bs=1M count=64 oflag=direct
}

short_lives()
{
	for _ in 1 2 3; do
		sh -c "ls -l | sort" &
	done
	wait
}

# Fill the memory, but leave room for two files (or locks) of the region's size: a new one is made
# before the last one is removed.
ballast()
{
	share=$(($(meminfo MemAvailable) / 1024 - 2 * WANTED - AIR))
	[ $share -gt 0 ] || return 0
	"$@" $share
}

fill_tmpfs()
{
	dd if=/dev/zero of=/tmp/ballast bs=1M count="$1" 2>/dev/null
}

lock_rest()
{
	lock-memory "$1" > /tmp/locked &
	until [ -s /tmp/locked ]; do
		sleep 0.1
	done
	rm /tmp/locked
}

start_load()
{
	case $load in
		cache) dd if=/dev/zero of=/disk/large bs=1M count=660 2>/dev/null ;;
		mlock) ballast lock_rest ;;
		tmpfs) ballast fill_tmpfs ;;
		ext4)
			echo 60 > /proc/sys/vm/dirty_ratio
			echo 50 > /proc/sys/vm/dirty_background_ratio
			until_stopped make_dirty 1 &
			until_stopped make_dirty 2 &
			;;
		fork)
			ballast fill_tmpfs
			until_stopped short_lives &
			until_stopped short_lives &
			;;
		direct)
			ballast fill_tmpfs
			for writer in 1 2 3 4; do
				until_stopped write_direct $writer &
			done
			;;
		*) echo "Bail out! load=$load is unknown"; exit 1 ;;
	esac
}

refill()
{
	case $load in
		cache) read_on "$1" ;;
		mlock) lock_new ;;
		ext4) sleep 0.5 ;;
		*) new_file ;;
	esac
}

mkdir /disk
modprobe -a virtio_pci virtio_blk ext4
mount -t ext4 /dev/vda /disk || { echo "Bail out! there is no disk"; exit 1; }
# By default, a tmpfs is limited to half of the memory.
mount -o remount,size=90% /tmp

grow > /tmp/at-boot
figure at_boot_error "$(cut -d ' ' -f 2 /tmp/at-boot)"
figure at_boot_ms "$(awk '{ printf "%.1f", $1 / 1000 }' /tmp/at-boot)"
set_mib 0

# Rounds whose first write failed, and rounds in which no write succeeded. Columns of the file:
# microseconds, error, number of writes, microseconds of the longest write
count_failed()
{
	awk '$3 > 1 || $2 { n++ } END { print n + 0 }' /tmp/times
}

count_lost()
{
	awk '$2 { n++ } END { print n + 0 }' /tmp/times
}

start_load
moved=0
for round in $(seq "$rounds"); do
	refill "$round"
	before=$(migrated)
	grow $PATIENCE
	moved=$((moved + $(migrated) - before))
	set_mib 0
	# A run takes an hour with some loads: whoever ends it sees how far it got.
	[ $((round % 20)) != 0 ] || echo "# round $round: failed $(count_failed), lost $(count_lost)" >&2
done > /tmp/times
touch /tmp/stop

# percentile COLUMN PERCENT: print the percentile of a column in milliseconds.
percentile()
{
	awk -v column="$1" '{ print $column }' /tmp/times | sort -n |
	awk -v share="$2" '{ all[NR] = $1 } END { i = int(NR * share / 100 + 0.5)
		printf "%.1f", all[i < 1 ? 1 : i] / 1000 }'
}

figure rounds "$rounds"
lost=$(count_lost)
figure failed "$(count_failed)"
figure failed_with_retries "$lost"
figure writes "$(awk '{ n += $3 } END { print n }' /tmp/times)"
figure median_ms "$(percentile 1 50)"
figure worst_ms "$(percentile 1 100)"
figure longest_write_ms "$(percentile 4 100)"
figure moved_mib_each $((moved / 256 / rounds))

ktap_print_header
ktap_set_plan 5
ktap_test_result "grew_at_boot" grep -q "^[0-9]* 0 " /tmp/at-boot
ktap_test_result "all_measured" test "$(grep -c . /tmp/times)" = "$rounds"
# 99 of 100 succeed with tinykdump's retries.
ktap_test_result "nearly_all_grew" test $((lost * 100)) -le "$rounds"
ktap_test_result "all_freed" size_is 0
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops\|Out of memory')" = 0
ktap_finished
