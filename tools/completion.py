#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Write the completions for bash, zsh and fish from the parser: tools/completion.py BASH ZSH FISH.

The arguments are the files to write; make install runs this. shtab (PyPI) could do it, too. But
what it writes is mostly its own code, which would then be a part of the package, with its license.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

CHECKOUT = Path(__file__).resolve().parents[1]
HEAD = "SPDX-License-Identifier: GPL-2.0-or-later\n# Written by tools/completion.py. Do not edit.\n"

# What a value can be, beside one of some words.
FILE, DIRECTORY, KERNEL, ANY = "file", "directory", "kernel", "any"
KINDS = {"FILE": FILE, "KEY": FILE, "DIR": DIRECTORY, "KVER": KERNEL}


@dataclass(frozen=True)
class Value:
    """What an option or an argument takes."""

    name: str
    kind: str
    words: tuple[str, ...] = ()  # the only values


@dataclass(frozen=True)
class Option:
    """An option with all its names."""

    names: tuple[str, ...]
    help: str
    value: Value | None


@dataclass(frozen=True)
class Command:
    """A command; the one without a name is tinykdump itself."""

    name: str
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Value, ...]


def read(top: argparse.ArgumentParser) -> tuple[Command, ...]:
    """The commands of a parser, itself first."""
    found = [_command("", "", top)]
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for shown in action._choices_actions:
                parser = action.choices[shown.dest]
                found.append(_command(shown.dest, shown.help or "", parser))
    return tuple(found)


def _command(name: str, said: str, parser: argparse.ArgumentParser) -> Command:
    actions = [each for each in parser._actions if not isinstance(each, argparse._SubParsersAction)]
    options = tuple(
        Option(tuple(each.option_strings), each.help or "", _value(each))
        for each in actions
        if each.option_strings
    )
    arguments = (_value(each) for each in actions if not each.option_strings)
    return Command(name, said, options, tuple(each for each in arguments if each))


def _value(action: argparse.Action) -> Value | None:
    """What an option or an argument takes; None: nothing."""
    if action.nargs == 0:
        return None
    name = action.metavar if isinstance(action.metavar, str) else action.dest
    if action.choices:
        return Value(name, ANY, tuple(map(str, action.choices)))
    return Value(name, KINDS.get(name, FILE if not action.option_strings else ANY))


def taking(command: Command) -> Iterator[str]:
    """The names of the options that take a value."""
    for option in command.options:
        yield from option.names if option.value else ()


BASH = """\
# shellcheck shell=bash
# {head}
_tinykdump() {{
	local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
	local command='' options='' words='' kind='' at
	# readline takes --option=value apart.
	[[ $current != '=' ]] || current=''
	[[ $previous != '=' ]] || previous=${{COMP_WORDS[COMP_CWORD - 2]}}
	for ((at = 1; at < COMP_CWORD; at++)); do
		case ${{COMP_WORDS[at]}} in
		{taking})
			[[ ${{COMP_WORDS[at + 1]}} != '=' ]] || ((at++))
			((at++))
			;;
		-*) ;;
		*)
			command=${{COMP_WORDS[at]}}
			break
			;;
		esac
	done
	case $command in
{commands}
	esac
	case $command:$previous in
{values}
	*)
		[[ $current != -* ]] || {{
			words=$options
			kind=''
		}}
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
}}

complete -F _tinykdump tinykdump
"""


def bash(commands: Sequence[Command]) -> str:
    """The completion of bash. It does not need the package bash-completion, which loads it."""
    arms, values = [], []
    for command in commands:
        names = " ".join(name for option in command.options for name in option.names)
        words, kind = _all(command.arguments)
        if not command.name:
            words = " ".join(each.name for each in commands[1:])
        arms.append(f"\t{quote(command.name)})\n\t\toptions={quote(names)}\n"
                    f"\t\twords={quote(words)} kind={quote(kind)}\n\t\t;;")  # fmt: skip
        for option in command.options:
            if option.value:
                patterns = " | ".join(f"{command.name}:{name}" for name in option.names)
                words, kind = _all([option.value])
                values.append(f"\t{patterns}) words={quote(words)} kind={quote(kind)} ;;")
    return BASH.format(head=HEAD, taking=" | ".join(taking(commands[0])), commands="\n".join(arms),
                       values="\n".join(values))  # fmt: skip


def _all(values: Sequence[Value]) -> tuple[str, str]:
    """The words and the kind that any of these values can be."""
    kinds = [each.kind for each in values if each.kind != ANY]
    return " ".join(word for each in values for word in each.words), (kinds or [""])[0]


ZSH = """\
#compdef tinykdump
# {head}
_tinykdump_kernels() {{
	local -a found
	found=(/lib/modules/*(N/:t))
	_describe kernel found
}}

_tinykdump() {{
	local curcontext=$curcontext state line
	local -a commands
	typeset -A opt_args
	_arguments -C -s -A '-*' {top} '1:command:->command' '*::argument:->argument'
	case $state in
	command)
		commands=(
{commands}
		)
		_describe command commands
		;;
	argument)
		case $line[1] in
{arms}
		esac
		;;
	esac
}}

_tinykdump "$@"
"""
ZSH_KINDS = {FILE: "_files", DIRECTORY: "_files -/", KERNEL: "_tinykdump_kernels", ANY: " "}


def zsh(commands: Sequence[Command]) -> str:
    """The completion of zsh, by its _arguments (zshcompsys(1))."""
    shown = [f"\t\t\t{quote(f'{each.name}:{each.help}')}" for each in commands[1:]]
    arms = []
    for command in commands[1:]:
        words = [*map(_zsh_option, command.options), *map(_zsh_argument, command.arguments)]
        arms.append(f"\t\t{command.name}) _arguments -s {' '.join(words)} ;;")
    top = " ".join(map(_zsh_option, commands[0].options))
    return ZSH.format(head=HEAD, top=top, commands="\n".join(shown), arms="\n".join(arms))


def _zsh_option(option: Option) -> str:
    """The words for an option: its names exclude each other."""
    said = f"[{_escaped(option.help)}]{_zsh_value(option.value) if option.value else ''}"
    return " ".join(quote(f"({' '.join(option.names)}){name}{said}") for name in option.names)


def _zsh_argument(value: Value) -> str:
    return quote(_zsh_value(value))


def _zsh_value(value: Value) -> str:
    action = f"({' '.join(value.words)})" if value.words else ZSH_KINDS[value.kind]
    return f":{_escaped(value.name)}:{action}"


def _escaped(text: str) -> str:
    for special in "\\[]:":
        text = text.replace(special, f"\\{special}")
    return text


FISH = """\
# {head}
function __tinykdump_is --description 'Whether this is the command so far; empty: none yet'
	set -l skip no
	set -l found ''
	for word in (commandline -opc)[2..-1]
		if test $skip = yes
			set skip no
			continue
		end
		switch $word
			case {taking}
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
{lines}
"""
FISH_KINDS = {FILE: "-r -F", DIRECTORY: "-x -a '(__fish_complete_directories)'",
              KERNEL: "-x -a '(command ls /lib/modules 2>/dev/null)'", ANY: "-x"}  # fmt: skip


def fish(commands: Sequence[Command]) -> str:
    """The completion of fish, by its complete(1)."""
    lines = []
    for command in commands:
        where = f"complete -c tinykdump -n {_fish(f'__tinykdump_is {_fish(command.name)}')}"
        for option in command.options:
            names = " ".join(map(_fish_name, option.names))
            takes = _fish_value(option.value) if option.value else ""
            lines.append(f"{where} {names} {takes} -d {_fish(option.help)}".replace("  ", " "))
        for value in command.arguments:
            words = f"-a {_fish(' '.join(value.words))}" if value.words else ""
            lines.append(f"{where} {words or FISH_KINDS[value.kind].removeprefix('-r ')}")
        if not command.name:
            lines += [f"{where} -a {each.name} -d {_fish(each.help)}" for each in commands[1:]]
    words = " ".join(taking(commands[0]))
    return FISH.format(head=HEAD, taking=words, lines="\n".join(lines))


def _fish_name(name: str) -> str:
    return f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"


def _fish_value(value: Value) -> str:
    return f"-x -a {_fish(' '.join(value.words))}" if value.words else FISH_KINDS[value.kind]


def _fish(text: str) -> str:
    """Quoted for fish, whose quotes know two escapes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def texts(parser: argparse.ArgumentParser) -> tuple[str, str, str]:
    """The files for bash, zsh and fish."""
    commands = read(parser)
    return bash(commands), zsh(commands), fish(commands)


def main() -> None:
    sys.path.insert(0, str(CHECKOUT / "src"))
    from tinykdump import grammar  # noqa: PLC0415 - below the path that is set above

    options = argparse.ArgumentParser(description=__doc__)
    for shell in ("bash", "zsh", "fish"):
        options.add_argument(shell, type=Path)
    files = options.parse_args()
    for path, text in zip(
        (files.bash, files.zsh, files.fish), texts(grammar.parser()), strict=True
    ):
        path.write_text(text)
        path.chmod(0o644)


if __name__ == "__main__":
    main()
