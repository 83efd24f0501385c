# SPDX-License-Identifier: GPL-2.0-or-later
# Written by tools/completion.py. Do not edit.

function __tinykdump_is --description 'Whether this is the command so far; empty: none yet'
	set -l skip no
	set -l found ''
	for word in (commandline -opc)[2..-1]
		if test $skip = yes
			set skip no
			continue
		end
		switch $word
			case -c --config --c -m --module -s --script -k --key --kernel
				set skip yes
			case '-*'
			case '*'
				set found $word
				break
		end
	end
	test "$found" = "$argv[1]"
end

complete -c tinykdump -f
complete -c tinykdump -n '__tinykdump_is \'\'' -s h -l help -d 'show this help message and exit'
complete -c tinykdump -n '__tinykdump_is \'\'' -l version -d 'show program\'s version number and exit'
complete -c tinykdump -n '__tinykdump_is \'\'' -s c -l config -l c -r -F -d 'read FILE instead of /etc/default/tinykdump'
complete -c tinykdump -n '__tinykdump_is \'\'' -s b -l build -d 'build the crash image'
complete -c tinykdump -n '__tinykdump_is \'\'' -s m -l module -x -d 'add these modules to the image'
complete -c tinykdump -n '__tinykdump_is \'\'' -s l -l load -d 'load the crash image; build it first if necessary'
complete -c tinykdump -n '__tinykdump_is \'\'' -s s -l script -r -F -d 'run FILE in the crash kernel before the dump'
complete -c tinykdump -n '__tinykdump_is \'\'' -s k -l key -r -F -d 'encrypt to KEY: a path with a / or a key in root\'s keyring'
complete -c tinykdump -n '__tinykdump_is \'\'' -l kernel -x -a '(command ls /lib/modules 2>/dev/null)' -d 'use this installed kernel instead of the running one'
complete -c tinykdump -n '__tinykdump_is \'\'' -a prepare -d 'format a USB disk as a stick for dumps'
complete -c tinykdump -n '__tinykdump_is \'\'' -a status -d 'show whether this machine is armed'
complete -c tinykdump -n '__tinykdump_is \'\'' -a estimate -d 'show what the crash kernel and a dump need'
complete -c tinykdump -n '__tinykdump_is \'\'' -a list -d 'list the dumps on sticks'
complete -c tinykdump -n '__tinykdump_is \'\'' -a key -d 'show, export or back up the key of the dumps'
complete -c tinykdump -n '__tinykdump_is \'\'' -a log -d 'print the log of the last crash kernel, from pstore'
complete -c tinykdump -n '__tinykdump_is \'\'' -a notice -d 'tell at the next login that this machine crashed'
complete -c tinykdump -n '__tinykdump_is \'\'' -a unload -d 'unload tinykdump\'s crash kernel'
complete -c tinykdump -n '__tinykdump_is \'\'' -a restore -d 'check and decrypt a dump, and write a vmcore'
complete -c tinykdump -n '__tinykdump_is \'\'' -a report -d 'show what is in a vmcore, with drgn'
complete -c tinykdump -n '__tinykdump_is \'\'' -a harvest -d 'restore this machine\'s new dumps to /var/crash'
complete -c tinykdump -n '__tinykdump_is \'prepare\'' -s h -l help -d 'show this help message and exit'
complete -c tinykdump -n '__tinykdump_is \'prepare\'' -l filesystem -x -a 'vfat exfat ext4' -d 'make this file system: vfat, exfat, ext4'
complete -c tinykdump -n '__tinykdump_is \'prepare\'' -l keep-data -d 'only change the label of the file system'
complete -c tinykdump -n '__tinykdump_is \'prepare\'' -l yes -d 'do not ask'
complete -c tinykdump -n '__tinykdump_is \'prepare\'' -F
complete -c tinykdump -n '__tinykdump_is \'status\'' -s h -l help -d 'show this help message and exit'
complete -c tinykdump -n '__tinykdump_is \'status\'' -l json -d 'print JSON, for programs'
complete -c tinykdump -n '__tinykdump_is \'status\'' -l check -d 'print one line, for monitoring; exit with 0, 1, 2 or 3'
complete -c tinykdump -n '__tinykdump_is \'estimate\'' -s h -l help -d 'show this help message and exit'
complete -c tinykdump -n '__tinykdump_is \'list\'' -s h -l help -d 'show this help message and exit'
complete -c tinykdump -n '__tinykdump_is \'list\'' -l mount -d 'also read sticks that are not mounted'
complete -c tinykdump -n '__tinykdump_is \'list\'' -l json -d 'print JSON, for programs'
complete -c tinykdump -n '__tinykdump_is \'key\'' -s h -l help -d 'show this help message and exit'
complete -c tinykdump -n '__tinykdump_is \'key\'' -a 'show export backup'
complete -c tinykdump -n '__tinykdump_is \'key\'' -F
complete -c tinykdump -n '__tinykdump_is \'log\'' -s h -l help -d 'show this help message and exit'
complete -c tinykdump -n '__tinykdump_is \'notice\'' -s h -l help -d 'show this help message and exit'
complete -c tinykdump -n '__tinykdump_is \'unload\'' -s h -l help -d 'show this help message and exit'
complete -c tinykdump -n '__tinykdump_is \'restore\'' -s h -l help -d 'show this help message and exit'
complete -c tinykdump -n '__tinykdump_is \'restore\'' -s o -l output -x -a '(__fish_complete_directories)' -d 'write to DIR instead of /var/crash/HOST-TIME'
complete -c tinykdump -n '__tinykdump_is \'restore\'' -l dmesg -d 'only print the log of the crashed kernel'
complete -c tinykdump -n '__tinykdump_is \'restore\'' -l keys -x -a '(__fish_complete_directories)' -d 'use the secret key in this GnuPG home directory'
complete -c tinykdump -n '__tinykdump_is \'restore\'' -l plain -d 'restore also unencrypted files, which can be forged'
complete -c tinykdump -n '__tinykdump_is \'restore\'' -F
complete -c tinykdump -n '__tinykdump_is \'report\'' -s h -l help -d 'show this help message and exit'
complete -c tinykdump -n '__tinykdump_is \'report\'' -l html -r -F -d 'write a page with plots to FILE instead'
complete -c tinykdump -n '__tinykdump_is \'report\'' -l symbols -r -F -d 'use the symbols in FILE, a vmlinux or a module'
complete -c tinykdump -n '__tinykdump_is \'report\'' -F
complete -c tinykdump -n '__tinykdump_is \'harvest\'' -s h -l help -d 'show this help message and exit'
