# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# Blocks of memory are taken off line, and put back: under a region, with an image loaded, and while
# a region is taken.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

MEMORY=/sys/devices/system/memory
ROUNDS=30
block=$((0x$(cat $MEMORY/block_size_bytes)))

set_state()
{
	echo "$2" > "$MEMORY/memory$1/state"
} 2>/dev/null

# Each block that can be, one after the other.
take_and_put_back()
{
	taken=0
	for place in "$MEMORY"/memory[0-9]*; do
		number=${place##*/memory}
		set_state "$number" offline || continue
		taken=$((taken + 1))
		set_state "$number" online || return
	done
}

all_are_there()
{
	! grep -qv '^online$' "$MEMORY"/memory[0-9]*/state
}

region_keeps_its_blocks()
{
	before=$(region)
	for number in $(seq $((0x${before%-*} / block)) $((0x${before#*-} / block))); do
		! set_state "$number" offline || return
	done
	[ "$(region)" = "$before" ] && size_is 64
}

# The kernel writes the list of memory of the loaded image anew each time.
image_stays()
{
	load -s && take_and_put_back && [ "$taken" -gt 0 ] && grep -qx 1 $KEXEC/crash_loaded && unload -s
}

grows_meanwhile()
{
	set_mib 0
	until [ -e /tmp/enough ]; do
		take_and_put_back
	done &
	grown=0
	for _ in $(seq $ROUNDS); do
		set_mib 64 && grown=$((grown + 1))
		size_is 0 || size_is 64 || return
		set_mib 0 || return
	done
	touch /tmp/enough
	wait
	[ $grown -gt 0 ]
}

ktap_print_header
ktap_set_plan 6
ktap_test_result "grow" set_mib 64
ktap_test_result "region_keeps_its_blocks" region_keeps_its_blocks
ktap_test_result "image_stays" image_stays
figure taken "$taken"
ktap_test_result "grows_meanwhile" grows_meanwhile
figure grown "$grown of $ROUNDS"
ktap_test_result "all_are_there" all_are_there
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
