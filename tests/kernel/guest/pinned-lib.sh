# SPDX-License-Identifier: GPL-2.0-or-later
# Pages of the area that cannot be moved.
# shellcheck shell=sh

# Other memory is full, so that new pages go to the area.
fill()
{
	mount -o remount,size=90% /tmp
	dd if=/dev/zero of=/tmp/ballast bs=1M count=$(($(meminfo MemAvailable) / 1024 - 350)) 2>/dev/null
}

pin()
{
	pin-pages 220 "$(cat "$AREA/base_pfn")" "$(cat "$AREA/count")" > /tmp/pinned &
	holder=$!
	until [ -s /tmp/pinned ]; do
		kill -0 $holder || return
		sleep 0.1
	done
	figure pinned "$(cat /tmp/pinned)"
	[ "$(cat /tmp/pinned)" -gt 0 ]
}

let_go()
{
	kill "$holder"
	wait "$holder" 2>/dev/null
	return 0
}
