# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Writers, readers and loaders run at the same time. Afterwards the region is consistent, and all of
# it can be freed.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

end=$(($(date +%s) + $(parameter seconds)))

until_end()
{
	while [ "$(date +%s)" -lt "$end" ]; do
		"$@"
	done >/dev/null 2>&1
}

write_some()
{
	for size in $1; do
		echo $((size * MIB)) > $KEXEC/crash_size
	done
}

load_and_unload()
{
	load "$1"
	unload "$1"
}

until_end write_some "64 128 0" &
until_end write_some "32 96 64" &
until_end write_some "0 160 48" &
until_end write_some "112 16" &
until_end cat $KEXEC/crash_size /proc/iomem &
until_end load_and_unload -s &
until_end load_and_unload -c &
wait

region_is_whole()
{
	# shellcheck disable=SC2046 # two numbers
	set -- $(region | tr - ' ')
	[ -z "$1" ] && { size_is 0; return; }
	[ $((0x$2 + 1 - 0x$1)) = "$(cat $KEXEC/crash_size)" ]
}

ktap_print_header
ktap_set_plan 4
unload -s
ktap_test_result "region_is_whole" region_is_whole
ktap_test_result "free" set_mib 0
ktap_test_result "area_is_free" area_is_whole
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
