# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# The stages up to a mounted stick: modules, disks, the stick itself; and the space on it.
# shellcheck disable=SC2034,SC2154 # lib.sh says where variables come from; some are used in other files

# Load the modules in order, with their parameters: without modprobe, nothing else takes these from
# the command line. Delete loaded modules to save memory.
load_modules() {
	while read -r module parameters; do
		insmod "$module" ${parameters:+"$parameters"} || say "could not load $module"
		rm -f "$module"
	done <"$MODULES"
}

# pstore keeps the crash log; some of its backends write nothing until it is mounted.
mount_pstore() {
	[ ! -d /sys/fs/pstore ] || mount -t pstore pstore /sys/fs/pstore
}

# Whether a disk, or a part of one, is behind USB, by its name in sysfs.
is_behind_usb() {
	case $(readlink -f "$SYS/class/block/$1") in
	*/usb[0-9]*/*) ;;
	*) return 1 ;;
	esac
}

# Remove the device nodes of all disks that are not behind USB, so that they cannot be read,
# mounted or written.
hide_other_disks() {
	for disk in "$SYS"/class/block/*; do
		is_behind_usb "${disk##*/}" ||
			rm -f "$DEV/$(sed -n 's/^DEVNAME=//p' "$disk/uevent")"
	done
}

# usb-storage looks at a device as soon as it is there (usb_storage.delay_use=0), and once. Look again
# at one that had no answer yet. The kernel may wait long for an answer, so nothing waits for that.
look_again() {
	for adapter in "$SYS"/class/scsi_host/host*; do
		[ -e "$adapter/scan" ] || continue
		set -- "$adapter"/device/target*
		[ -e "$1" ] || echo "- - -" >"$adapter/scan" &
	done
}

# After a kexec, some host controllers need a second reset.
rebind_controllers() {
	say "no stick yet: resetting the USB host controllers"
	for device in "$SYS"/bus/pci/drivers/[eoux]hci[-_]*/*:*; do
		[ -e "$device" ] || continue
		echo "${device##*/}" >"${device%/*}/unbind"
		echo "${device##*/}" >"${device%/*}/bind"
	done
}

# Sets DEVICE. Polls, because there is no udev.
wait_for_stick() {
	stage "waiting for the stick $TARGET_TAG=$TARGET_VALUE"
	look_at_clock
	began=$CLOCK rounds=0 was_reset=
	while :; do
		hide_other_disks
		# A disk of another kind can have come while it looked.
		DEVICE=$(findfs "$TARGET_TAG=$TARGET_VALUE" 2>/dev/null) &&
			is_behind_usb "${DEVICE##*/}" && break
		DEVICE=
		look_at_clock
		waited=$((CLOCK - began)) # a look can take long, too
		[ "$waited" -lt $((WAIT * 100)) ] ||
			die "no stick $TARGET_TAG=$TARGET_VALUE within $WAIT s$AGAIN"
		tick
		rounds=$((rounds + 1)) # about five in a second
		[ $((rounds % 25)) -ne 5 ] || look_again
		[ $((rounds % 25)) -ne 0 ] || say "waited $((waited / 100)) of $WAIT s for the stick"
		[ -n "$was_reset" ] || [ "$waited" -lt $((WAIT * 50)) ] || { was_reset=1; rebind_controllers; }
		usleep 200000 # openSUSE's busybox takes only whole seconds for sleep
	done
	[ -z "$ROOT_UUID" ] || [ "$(findfs "UUID=$ROOT_UUID" 2>/dev/null)" != "$DEVICE" ] ||
		die "$DEVICE is the root file system of the crashed system, not a stick for dumps"
	stage "found the stick: $DEVICE"
	warn_of_others
}

# Sets OTHER, a second stick with that name. findfs returns the first one: look again without its node.
warn_of_others() {
	mv "$DEVICE" "$TMP/node"
	OTHER=$(findfs "$TARGET_TAG=$TARGET_VALUE" 2>/dev/null)
	[ -z "$OTHER" ] || say "$OTHER is $TARGET_TAG=$TARGET_VALUE, too; the dump goes to $DEVICE"
	mv "$TMP/node" "$DEVICE"
}

# leave_unusable MESSAGE: give this stick up. If there is a second one, the dump goes there.
leave_unusable() {
	if [ -z "$OTHER" ] || is_pulled_out; then
		die "$1"
	fi
	stage "$1; trying $OTHER"
	rm -f "$DEVICE" # findfs must not find it again
	exit "$UNUSABLE"
}

# Whether the stick is gone since it was found. Its errors can come before the kernel notices that.
is_pulled_out() {
	[ -n "$DEVICE" ] || return
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		[ -e "$SYS/class/block/${DEVICE##*/}" ] || return 0
		usleep 200000
	done
	return 1
}

# Go back to the wait for a stick: this one, or another one with its name. If none comes, the message
# ends with the argument.
leave_for_another() {
	AGAIN=$1
	rm -f "$TMP/dump"
	umount "$STICK" 2>/dev/null || umount -l "$STICK" 2>/dev/null
}

# Sets PART_CHUNKS, the size of a part: a file on FAT is smaller than 4 GiB; the limits of the other
# file systems are larger than any memory.
mount_stick() {
	for type in $FILESYSTEMS; do
		# dirsync: a new directory or name is on the stick when the command returns.
		options=nosuid,nodev,noexec,noatime,dirsync PART_CHUNKS=
		if [ "$type" = vfat ]; then
			options=$options,codepage=437,iocharset=ascii PART_CHUNKS=511
		elif [ "$type" = exfat ]; then
			options=$options,iocharset=utf8 # needs no module, unlike other defaults of a kernel
		fi
		mount -t "$type" -o "$options" "$DEVICE" "$STICK" 2>"$TMP/mount" && return
		say "cannot mount it as $type: $(cat "$TMP/mount")"
	done
	leave_unusable "cannot mount $DEVICE with any file system of this image: $FILESYSTEMS"
}

# --- space on the stick -----------------------------------------------------------------

free_kib() {
	df -Pk "${DUMP:-$STICK}" | { read -r _ && read -r _ _ _ free _ && echo "$free"; }
}

# make_room KIB: delete old files, one at a time, until that much space is free; fails if there are
# none left.
make_room() {
	while [ "$(free_kib)" -lt "$1" ]; do
		remove_torn_memory || remove_oldest_dump || return
	done
}

# Delete one memory file of an incomplete dump of this machine; its logs stay.
remove_torn_memory() {
	for torn in "$MINE"/*.partial; do
		if [ "$torn" = "$DUMP" ] || [ -L "$torn" ]; then
			continue
		fi
		for file in "$torn"/vmcore*; do
			if [ -f "$file" ] && rm -f "$file"; then
				say "no space: removed ${file#"$MINE"/} of an incomplete dump"
				return
			fi
		done
	done
	return 1
}

# The names of this machine's complete dumps except the new one, the oldest first: by time, and by
# the number after it. Other names are skipped: they could contain spaces.
old_dumps() {
	for old in "$MINE"/[0-9]*Z*; do
		case ${old##*/} in
		*[!0-9TZ-]*) ;;
		"${FINAL_NAME##*/}") ;; # the new one, wherever the clock sorts it
		*) [ -L "$old" ] || [ ! -f "$old/SHA256SUMS" ] || echo "${old##*/}" ;;
		esac
	done | sort -t - -k 1,1 -k 2,2n
}

# Remove a complete dump, under a name by which it is not taken for one if this is cut off.
remove_dump() {
	if mv "$MINE/$1" "$MINE/$1.partial" 2>"$TMP/mv"; then
		rm -rf "${MINE:?}/$1.partial"
	else # the new name needs space, too
		rm -rf "${MINE:?}/$1"
	fi
}

# Delete the oldest complete dump, but never the last one: the new one may still fail.
remove_oldest_dump() {
	[ "$KEEP" -gt 0 ] || return
	# shellcheck disable=SC2046 # names
	set -- $(old_dumps)
	[ "$#" -gt 1 ] || return
	say "no space: removing the old dump $1"
	remove_dump "$1"
}
