# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tinykdump import (
    actions,
    backup,
    crash,
    debuginfo,
    disks,
    dumps,
    harvest,
    kernels,
    keys,
    listing,
    load,
    memory,
    notice,
    parts,
    prepare,
    progress,
    pstore,
    rehearsal,
    restore,
    room,
    speed,
    state,
    stick,
    survey,
    trial,
    vmcoreinfo,
)
from tinykdump.clock import local, shown
from tinykdump.config import INSTALLED, Config
from tinykdump.config_files import load_config
from tinykdump.errors import TinykdumpError, UsageError
from tinykdump.grammar import parser
from tinykdump.host import Host
from tinykdump.image import programs
from tinykdump.memory import MIB
from tinykdump.report import line, say
from tinykdump.status import Crash
from tinykdump.text import escaped
from tinykdump.vmcore import lines, page, reader

INTERRUPTED = 128 + signal.SIGINT
UNKNOWN = 3  # of status --check


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 1 for an error, 2 for an invalid command line.

    Ctrl-C returns INTERRUPTED, as in a shell.
    """
    top = parser()
    options = top.parse_args(arguments)
    host = Host.given(os.environ)
    try:
        if options.command not in FOR_ALL and host.root == Path("/") and os.geteuid() != 0:
            raise TinykdumpError("tinykdump must run as root", "use sudo")
        if options.command:
            return COMMANDS[options.command](host, options)
        if options.build or options.load:
            return make(host, options)
        top.print_usage(sys.stderr)
        say("nothing to do (use -b, -l or a command)")
        return 2
    except BrokenPipeError:  # see report.piped()
        raise
    except (TinykdumpError, OSError) as error:
        if getattr(options, "check", False):  # monitoring reads standard output
            print(f"TINYKDUMP UNKNOWN - {line(error)}")
            return UNKNOWN
        say(line(error))
        return error.exit_status if isinstance(error, TinykdumpError) else 1
    except KeyboardInterrupt:
        say("interrupted (what was built and loaded before is unchanged; run it again)")
        return INTERRUPTED


def make(host: Host, options: argparse.Namespace) -> int:
    """-b and -l."""
    key = options.key
    if key and "/" in key:  # without a / it is never a file that is in this directory by chance
        key = str(Path.cwd() / key)
    given = {"modules": options.module, "script": options.script, "key": key}
    asked = {key: text for key, text in given.items() if text is not None}
    config, kver = _of_kernel(host, options, asked)
    with state.lock(host):
        actions.prune(host)
        if options.build or asked or options.config:  # an older image would not do what was asked
            image, _ = actions.build_image(host, config, kver, force=options.build)
        else:
            image = actions.best_image(host, config, kver)
        print(
            f"image of {image.kver}: {image.packed} bytes packed, {image.unpacked} unpacked, "
            f"{len(image.modules)} modules, "
            + (f"key {image.key}" if image.key else "NOT ENCRYPTED")
        )
        sizes = dict(zip(image.filesystems, image.filesystem_bytes, strict=False))
        if sizes:  # an older version did not write them
            print("file systems: " + ", ".join(f"{name} {sizes[name]} bytes" for name in sizes))
        if options.build and (found := programs.shortcoming(host, kernels.config(host, kver))):
            say(f"note: {found.note}")
        if options.load:
            held = load.load(host, image, takeover=config.takeover)
            print(f"loaded; {held.size // MIB} MiB of memory are reserved")
            actions.check_stick(host, config, image)
    return 0


def _of_kernel(
    host: Host, options: argparse.Namespace, asked: Mapping[str, str]
) -> tuple[Config, str]:
    """The configuration, and the version of the kernel that crashes. --kernel names one to load."""
    config = load_config(host, asked, options.config)
    if options.kernel:
        return replace(config, kernel=INSTALLED), options.kernel
    return config, host.running_kernel()


def prepare_stick(host: Host, options: argparse.Namespace) -> int:
    """Make a stick of a disk, after asking; without one, list what is there."""
    config = load_config(host, {}, options.config)
    if options.device is None:
        found = prepare.candidates(host)
        if not found:
            raise TinykdumpError("no USB disk is plugged in", "plug in a stick")
        print("\n".join(map(disks.describe, found)))
        say("nothing was changed (name one of these disks)")
        return 0
    planned = prepare.plan(host, config, options.device, filesystem=options.filesystem,
                           keep_data=options.keep_data)  # fmt: skip
    prepare.check_programs(planned)
    _check_terminal(options)
    print(disks.describe(planned.disk))
    for warning in prepare.warnings(host, config, planned):
        say(warning)
    if not options.yes:
        name, what = planned.disk.path.name, f"Everything on {planned.disk.path} will be lost"
        if planned.keeps_data:
            what = f"The label of {planned.disk.path} will become {planned.label}"
        _ask(f"{what}. Type the name of the disk", name, str(planned.disk.path))
    with state.lock(host):
        device = prepare.carry_out(host, config, planned)
    print(f"{device} is ready: {planned.filesystem}, {config.target}")
    image = load.ours(host)
    if image:
        actions.check_stick(host, config, image)
    return 0


def _check_terminal(options: argparse.Namespace) -> None:
    """Raise TinykdumpError if nobody can be asked and --yes is not there."""
    if not options.yes and not sys.stdin.isatty():
        raise TinykdumpError("nobody can be asked: there is no terminal", "add --yes")


def _ask(question: str, answer: str, *others: str) -> None:
    """Raise TinykdumpError unless the user types one of these answers."""
    try:
        typed = input(f"{question} ({answer}) to go on: ").strip()
    except EOFError:
        typed = ""
    if typed not in (answer, *others):
        raise TinykdumpError("nothing was changed", f"type {answer} to go on")


def test(host: Host, options: argparse.Namespace) -> int:
    """Crash this machine, after asking; or a guest."""
    if options.rehearse:
        return rehearse(host, options)
    config = load_config(host, {}, options.config)
    found, _ = trial.find_stick(host)
    _check_terminal(options)
    print(trial.warning(config, found), flush=True)
    if not options.yes:
        _ask("Type the word", "crash")
    with state.lock(host):  # an image may have been unloaded meanwhile, or the stick pulled out
        trial.crash_now(host, *trial.find_stick(host))
    return 1


def rehearse(host: Host, options: argparse.Namespace) -> int:
    """Crash a guest; 0 if the dump came out."""
    config = load_config(host, {}, options.config)
    done = rehearsal.rehearse(host, rehearsal.subject(host, config, options.kernel or ""), say)
    if not done.passed:
        raise TinykdumpError(f"the rehearsal of {done.kernel} failed: {done.result}",
                             f"read {rehearsal.CONSOLE}")  # fmt: skip
    print(f"the rehearsal of {done.kernel} passed: {done.result}")
    return 0


def show_status(host: Host, options: argparse.Namespace) -> int:
    """The state of this machine; 0 when it is armed."""
    config = load_config(host, {}, options.config)
    _settle(host)
    found = survey.collect(host, config)
    if options.check:
        code, text = found.check()
        print(text)
        return code
    print(found.to_json() if options.json else found.to_text(colour=_shows_colours()), flush=True)
    if found.crash and not found.crash.seen and not options.json:
        _see(host, found.crash)
    return 0 if found.armed else 1


def _settle(host: Host) -> None:
    """Note what came of the last test; if that fails, it is tried again."""
    if trial.is_settled(host):
        return
    try:
        with state.lock(host):
            trial.settle(host)
    except (TinykdumpError, OSError) as error:
        say(line(error))


def _see(host: Host, last: Crash) -> None:
    """Note that a crash was shown; if that fails, it is told again."""
    try:
        with state.lock(host):
            notice.see(host, last)
    except OSError as error:
        say(line(error))


def _shows_colours() -> bool:
    """Whether standard output is a terminal with colours, and the user wants them: no-color.org."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return wanted and sys.stdout.isatty()


def tell(host: Host, options: argparse.Namespace) -> int:
    """Tell at the next login and in the journal that this machine crashed."""
    last = crash.known(host, str(load_config(host, {}, options.config).target))
    with state.lock(host):
        if last and notice.announce(host, last):
            print(notice.sentence(last))
    return 0


def estimate(host: Host, options: argparse.Namespace) -> int:
    """Show how much memory the crash kernel needs, and what a dump takes."""
    config, kver = _of_kernel(host, options, {})
    image, need, has_image = actions.need(host, config, kver)
    print(f"crash kernel: {image.kver}\n\n{memory.table(need)}")
    if not has_image:
        print(f"\n{image.kver} has no image yet: its packed size was computed with zlib")
    print("\n" + "\n".join(_dump_estimate(host, config)))
    return 0


def _dump_estimate(host: Host, config: Config) -> Iterator[str]:
    """How large a dump would be now, and how long it would take."""
    size = stick.expected_dump(host, config.level)
    if not size:
        yield "a dump now:  size unknown (/proc/meminfo cannot be read)"
        return
    yield f"a dump now:  up to {room.amount(size)}, without compression"
    found = stick.find(host, str(config.target))
    log = pstore.crash_log(host, pstore.boots(host))
    how = speed.expected(host, found[0] if found else None, log)
    if how is None:
        yield "its time:    unknown (plug in the stick)"
        return
    rate = f"{how.rate / MIB:.1f} MiB/s, {how.source}"
    if how.is_read:
        rate += "; most sticks are written more slowly"
    yield f"its time:    up to {size / how.rate:.0f} s at {rate}"


def list_dumps(host: Host, options: argparse.Namespace) -> int:
    """The dumps on the sticks that can be read; 1 if there are none, or a stick cannot be read."""
    target = str(load_config(host, {}, options.config).target)
    if options.mount and os.geteuid() != 0:
        raise TinykdumpError("only root can mount sticks", "use sudo, or list without --mount")
    found, failures = listing.find(host, target, keys.homes(host), mount=options.mount)
    if options.json:
        print(listing.to_json(found))
    elif found:
        print(listing.to_text(found))
    if os.geteuid() == 0 and not options.mount:
        for each in listing.not_mounted(host, target):
            say(f"{each.device} is not mounted (tinykdump list --mount reads it)")
    if not found and not failures and not options.json:
        raise TinykdumpError("no dump was found", "plug in the stick, and mount it or use --mount")
    return complain(failures)


def key_command(host: Host, options: argparse.Namespace) -> int:
    """Show the key that dumps are encrypted to, print its public part, or copy the secret one."""
    config = load_config(host, {}, options.config)
    if (options.action == "backup") != bool(options.file):
        raise UsageError("only key backup takes a file, and it needs one",
                         "write tinykdump key backup FILE")  # fmt: skip
    if not config.encrypt:
        raise TinykdumpError("dumps are not encrypted", "set encrypt = yes in [dump]")
    if options.action == "backup":
        with state.lock(host):
            fingerprint = backup.make(host, config, options.file)
        print(f"{options.file}: the secret key {fingerprint}\n"
              f"Keep it safe. On another machine, import it with gpg --import")  # fmt: skip
        return 0
    key = keys.of_config(host, config.key)
    print(keys.armored(key) if options.action == "export" else _about(host, config, key))
    return 0


def _about(host: Host, config: Config, key: keys.Key) -> str:
    """The key in lines of text."""
    secret = keys.secret_home(key, keys.homes(host))
    lines = [
        ("key", key.fingerprint),
        ("origin", config.key or "made for this machine"),
        ("expires", shown(local(key.expires)) if key.expires else "never"),
        ("secret key", str(secret) if secret else "not on this machine"),
    ]
    if not config.key:
        made = backup.made(host, key.fingerprint)
        lines.append(("backup", shown(made) if made else "none (run tinykdump key backup FILE)"))
    return "\n".join(f"{name + ':':<14}{value}" for name, value in lines)


def show_log(host: Host, _options: argparse.Namespace) -> int:
    """Print the crash log."""
    boots = pstore.boots(host)
    log = pstore.crash_log(host, boots)
    if log is None:
        raise TinykdumpError(
            "pstore has no log of a crash kernel",
            "the line crash log of tinykdump status says whether pstore can keep one; README.md, "
            "When there is no dump, says how",
        )
    print(log.text)
    if not log.is_whole:
        print("(from dmesg records: this kernel has no CONFIG_PSTORE_KEXEC_CONSOLE, so the log of "
              "a crash kernel that hangs is lost)", file=sys.stderr)  # fmt: skip
    age = "" if log.ended_previous(boots) else ", perhaps not the last crash"
    print(f"({log.when}{age}; last stage: {log.stage or 'none'}; {log.verdict})", file=sys.stderr)
    return 0


def unload(host: Host, _options: argparse.Namespace) -> int:
    """Unload tinykdump's crash kernel."""
    with state.lock(host):
        done = load.unload(host)
    print("unloaded" if done else "tinykdump's crash kernel was not loaded")
    return 0


def restore_dump(host: Host, options: argparse.Namespace) -> int:
    """Decrypt and put in order; 0 when all of it is there and whole."""
    with dumps.opened(host, options.dump) as directory, keys.ending_agent(host):
        return _restore(host, options, directory)


def _restore(host: Host, options: argparse.Namespace, directory: Path) -> int:
    found = parts.look(directory)
    homes = [options.keys] if options.keys else keys.homes(host)
    if options.dmesg:
        log, problem = restore.log(found, homes, plain=options.plain)
        write_log(log)
        return complain([problem] if problem else [])
    target = options.output or place(host, directory)
    size = sum(stream.size for stream in found.streams)
    with progress.bar("restoring", size) as advance:
        done = restore.restore(found, target, homes, plain=options.plain, advance=advance)
    for file in done.files:
        print(file, flush=True)
    if done.ignored:  # anyone can have written these names: print them quoted
        say(f"ignored, not part of a dump: {', '.join(map(repr, done.ignored[:9]))}")
    for file in done.files:
        if file.stem.startswith("vmcore") and not file.suffix:
            advise(host, file)
    return complain(done.failures)


def place(host: Host, directory: Path) -> Path:
    """Where a dump is restored to: where kdump would have saved it, if the user is root."""
    top = host.path("/var/crash") if os.geteuid() == 0 else Path()
    target = top / dumps.name(host, directory)
    # Others may have made it, where they can write to /var/crash.
    if os.path.lexists(target) and not restore.is_leftover(target):
        raise TinykdumpError(f"{target} exists", "name another directory with --output")
    return target


def write_log(log: bytes) -> None:
    """Print a log that anyone can have written; on a terminal, without control characters."""
    if sys.stdout.isatty():
        print(escaped(log.decode(errors="replace")), end="")
        return
    sys.stdout.buffer.write(log)
    sys.stdout.flush()


def complain(failures: Sequence[TinykdumpError]) -> int:
    """Print what failed; the exit status."""
    for failure in failures:
        say(line(failure))
    return 1 if failures else 0


def advise(host: Host, vmcore: Path) -> None:
    """Say how to read a vmcore, on standard error."""
    with vmcore.open("rb") as file:
        info = vmcoreinfo.find(lambda at, size: os.pread(file.fileno(), size, at))
    if info and info.release:
        there = (path for path in debuginfo.places(info.release) if host.exists(path))
        for said in debuginfo.advice(vmcore, info, next(there, None)):
            print(said, file=sys.stderr)


def report_vmcore(_host: Host, options: argparse.Namespace) -> int:
    """Show what is in a vmcore; 0 even if parts of it cannot be read."""
    if options.html is None:
        print(lines.render(reader.read(options.vmcore, options.symbols)), end="")
        return 0
    # Before the vmcore is read, which can take minutes.
    with options.html.open("x", encoding="utf-8") as file:
        try:
            file.write(page.render(reader.read(options.vmcore, options.symbols)))
            file.flush()
        except BaseException:  # also Ctrl-C
            options.html.unlink()
            raise
    print(options.html)
    return 0


def harvest_dumps(host: Host, options: argparse.Namespace) -> int:
    """Restore this machine's new dumps; 0 when all of them are there and whole."""
    failures: list[TinykdumpError] = []
    for each in harvest.harvest(host, load_config(host, {}, options.config)):
        if each.restored.files:
            print(f"restored {each.target}", flush=True)
        failures += each.restored.failures
    return complain(failures)


# The commands that need not run as root.
FOR_ALL = ("list", "report", "restore")

COMMANDS = {
    "key": key_command,
    "list": list_dumps,
    "prepare": prepare_stick,
    "status": show_status,
    "test": test,
    "estimate": estimate,
    "log": show_log,
    "notice": tell,
    "unload": unload,
    "restore": restore_dump,
    "report": report_vmcore,
    "harvest": harvest_dumps,
}
