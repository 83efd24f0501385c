# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel-install plugin, which 60-tinykdump.install calls.

kernel-install(8) calls it with ``add KVER ENTRY-DIR IMAGE [INITRD...]`` and ``remove KVER
ENTRY-DIR``. Every error is printed, and the exit status is always 0, so that it does not fail
the kernel's transaction. Nothing is put into the staging area, where ukify would use it as an
initrd of the normal boot.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinykdump import actions, load, state, units
from tinykdump.config_files import load_config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.memory import MIB
from tinykdump.report import interruptible, line, say

REHEARSAL = "tinykdump-rehearse@.service"


@dataclass(frozen=True)
class Context:
    """One call of kernel-install, parsed."""

    verb: str
    kver: str
    image: str  # the kernel image that is being installed; empty on remove
    verbose: bool

    @classmethod
    def parse(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> "Context | None":
        """The call, or None for other verbs."""
        if len(arguments) < 2 or arguments[0] not in ("add", "remove"):
            return None
        given = arguments[3] if arguments[0] == "add" and len(arguments) > 3 else ""
        image = str(Path.cwd() / given) if given else ""
        verbose = environment.get("KERNEL_INSTALL_VERBOSE") == "1"
        return cls(arguments[0], arguments[1], image, verbose)


def add(host: Host, context: Context) -> None:
    """Build the kernel's image; on the running machine, load it too."""
    config = load_config(host, {})
    image, built = actions.build_image(host, config, context.kver, kernel=context.image)
    say(
        f"{'built' if built else 'kept'} the crash image of {image.kver}: {image.packed} bytes, "
        f"{len(image.modules)} modules"
    )
    if not host.live:
        say("not loaded: this is not the running system")
        return
    if config.on_install:
        _rehearse(context.kver)
    held = load.load(host, image, takeover=config.takeover)
    say(f"loaded; {held.size // MIB} MiB of memory are reserved")
    actions.check_stick(host, config, image)


def _rehearse(kver: str) -> None:
    """Start a rehearsal in the background: it waits for this call to end, and takes minutes."""
    try:
        units.start_instance(REHEARSAL, kver)
    except TinykdumpError as error:
        say(f"{kver} is not rehearsed: {error}")


def remove(host: Host, context: Context) -> None:
    """Delete the kernel's image, unless the kernel stays for the other type of boot entry."""
    if _stays(host, context.kver, os.environ.get("KERNEL_INSTALL_BOOT_ENTRY_TYPE", "")):
        return
    instead = actions.remove_kernel(host, context.kver, lambda: load_config(host, {}))
    if context.verbose or instead:
        say(
            f"removed the crash image of {context.kver}" + (f"; loaded {instead}'s" * bool(instead))
        )


def _stays(host: Host, kver: str, removed: str) -> bool:
    """Whether a kernel can still boot after its boot entries of the type ``removed`` are removed.

    Fedora packages a kernel twice: kernel-core for entries of type1, kernel-uki-virt, with a
    unified image, for type2. Each removes its entries before its files, and the modules can go
    before or after both. Hence what counts is the kernel image of the other package.
    """
    directory = Path("/lib/modules") / kver
    match removed:
        case "type1":
            return any(path.suffix == ".efi" for path in host.children(directory))
        case "type2":
            return host.exists(directory / "vmlinuz")
        case _:
            return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; always 0."""
    context = Context.parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    if context is None:
        return 0
    host = Host.given(os.environ)
    try:
        with state.lock(host):
            (add if context.verb == "add" else remove)(host, context)
            actions.prune(host)
    except (TinykdumpError, OSError) as error:
        say(f"{context.verb} {context.kver}: {line(error)}")
    except KeyboardInterrupt:
        say(f"{context.verb} {context.kver}: interrupted (run tinykdump -l)")
    return 0


if __name__ == "__main__":
    interruptible()
    sys.exit(main())
