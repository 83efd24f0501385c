# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Written by tools/completion.py. Do not edit.

_tinykdump() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
	local command='' options='' words='' kind='' at
	# readline takes --option=value apart.
	[[ $current != '=' ]] || current=''
	[[ $previous != '=' ]] || previous=${COMP_WORDS[COMP_CWORD - 2]}
	for ((at = 1; at < COMP_CWORD; at++)); do
		case ${COMP_WORDS[at]} in
		-c | --config | --c | -m | --module | -s | --script | -k | --key | --kernel)
			[[ ${COMP_WORDS[at + 1]} != '=' ]] || ((at++))
			((at++))
			;;
		-*) ;;
		*)
			command=${COMP_WORDS[at]}
			break
			;;
		esac
	done
	case $command in
	'')
		options='-h --help --version -c --config --c -b --build -m --module -l --load -s --script -k --key --kernel'
		words='prepare status estimate list key log notice unload restore report harvest' kind=''
		;;
	prepare)
		options='-h --help --filesystem --keep-data --yes'
		words='' kind=file
		;;
	status)
		options='-h --help --json --check'
		words='' kind=''
		;;
	estimate)
		options='-h --help'
		words='' kind=''
		;;
	list)
		options='-h --help --mount --json'
		words='' kind=''
		;;
	key)
		options='-h --help'
		words='show export backup' kind=file
		;;
	log)
		options='-h --help'
		words='' kind=''
		;;
	notice)
		options='-h --help'
		words='' kind=''
		;;
	unload)
		options='-h --help'
		words='' kind=''
		;;
	restore)
		options='-h --help -o --output --dmesg --keys --plain'
		words='' kind=file
		;;
	report)
		options='-h --help --html --symbols'
		words='' kind=file
		;;
	harvest)
		options='-h --help'
		words='' kind=''
		;;
	esac
	case $command:$previous in
	:-c | :--config | :--c) words='' kind=file ;;
	:-m | :--module) words='' kind='' ;;
	:-s | :--script) words='' kind=file ;;
	:-k | :--key) words='' kind=file ;;
	:--kernel) words='' kind=kernel ;;
	prepare:--filesystem) words='vfat exfat ext4' kind='' ;;
	restore:-o | restore:--output) words='' kind=directory ;;
	restore:--keys) words='' kind=directory ;;
	report:--html) words='' kind=file ;;
	report:--symbols) words='' kind=file ;;
	*)
		[[ $current != -* ]] || {
			words=$options
			kind=''
		}
		;;
	esac
	case $kind in
	file | directory)
		compopt -o filenames 2>/dev/null
		local flag=-f
		[[ $kind = file ]] || flag=-d
		mapfile -t COMPREPLY < <(compgen "$flag" -W "$words" -- "$current")
		;;
	kernel)
		mapfile -t COMPREPLY < <(cd /lib/modules 2>/dev/null && compgen -d -- "$current")
		;;
	*) mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current") ;;
	esac
}

complete -F _tinykdump tinykdump
