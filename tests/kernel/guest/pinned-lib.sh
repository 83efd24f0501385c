# SPDX-License-Identifier: GPL-2.0-or-later
# Functions that pin pages of the area, so that they cannot be moved.
# shellcheck shell=sh

# Fill the other memory, so that new pages are in the area.
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

unpin()
{
	kill "$holder"
	wait "$holder" 2>/dev/null
	return 0
}
