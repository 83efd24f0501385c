"""What there is to know at one look. Reads only."""

import json
from dataclasses import asdict, dataclass

from tinykdump import hardware, keys, load, reserve, state
from tinykdump.config import Config
from tinykdump.errors import TinykdumpError
from tinykdump.host import Host
from tinykdump.memory import MIB


@dataclass(frozen=True)
class Status:
    """The state of this machine, as values that also make sense to a program."""

    running: str  # kernel version
    armed: bool  # our crash kernel is loaded
    loaded: str  # version of our crash kernel; "foreign" for one that is not ours; or empty
    reserved: int  # bytes
    needed: int  # bytes for the running kernel's image; 0: no image
    image: str  # what there is for the running kernel: "built" or "none"
    key: str  # fingerprint; empty: none, or not encrypted
    encrypted: bool
    target: str
    stick: str  # device that is plugged in now, or empty
    problems: tuple[str, ...]  # one line each, with what to do

    def to_json(self) -> str:
        """For programs; ``problems`` is empty when all is well."""
        return json.dumps(asdict(self), indent=2)

    def to_text(self) -> str:
        """For people."""
        crash = f"armed with {self.loaded}" if self.armed else "not armed"
        lines = [
            ("kernel", self.running),
            ("crash kernel", crash),
            ("reserved", f"{self.reserved // MIB} MiB (needed: {self.needed // MIB} MiB)"),
            ("image", self.image),
            ("key", self.key if self.encrypted else "none: dumps are plain text"),
            ("stick", f"{self.target}, {self.stick or 'not plugged in'}"),
            *(("problem", problem) for problem in self.problems),
        ]
        return "\n".join(f"{name + ':':<14}{value}" for name, value in lines)


def collect(host: Host, config: Config) -> Status:
    """The status now. Raises TinykdumpError only where nothing can be said at all."""
    problems: list[str] = []
    running = state.running_kernel(host)
    held = reserve.read(host)
    mine = load.ours(host)
    image, key, need = None, "", 0
    try:
        image = state.read_manifest(host, running)
        if config.encrypt:
            named = config.key
            key = (
                keys.configured(named, host) if named else keys.machine_key(host, create=False)
            ).fingerprint
        if image is not None:
            need = load.need_of(host, image).total
            if not mine:
                reserve.require(held, need)
        else:
            problems.append(f"no image for {running} (run tinykdump -l)")
    except TinykdumpError as error:
        problems.append(str(error))
    if held.loaded and mine is None:
        problems.append("another crash kernel is loaded (see takeover in tinykdump(5))")
    device = hardware.stick(host, config.target.tag, config.target.value)
    return Status(
        running=running,
        armed=mine is not None,
        loaded=mine.kver if mine else "foreign" if held.loaded else "",
        reserved=held.size,
        needed=need,
        image="built" if image else "none",
        key=key,
        encrypted=config.encrypt,
        target=str(config.target),
        stick=str(device or ""),
        problems=tuple(problems),
    )
