# SPDX-License-Identifier: GPL-2.0-or-later
"""Read the configuration files of a host into one Config."""

from collections.abc import Mapping
from pathlib import Path

from tinykdump import config
from tinykdump.errors import TinykdumpError, UsageError
from tinykdump.host import Host


def load_config(host: Host, options: Mapping[str, str], file: str = "") -> config.Config:
    """The configuration: ``file`` alone, or the default file and its drop-ins; then options.

    ``options`` maps keys to the texts of the command line. Raises UsageError for invalid
    values and for a missing ``file``; TinykdumpError for files that other users can write.
    """
    if file:
        path = Path.cwd() / file
        Host().vouch(path)
        try:
            texts = [(file, path.read_text())]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{file}: {getattr(error, 'strerror', None) or 'not text'}",
                "name a configuration file",
            ) from None
    else:
        names = [config.FILE, *(n for n in host.children(config.DROP_INS) if n.suffix == ".conf")]
        texts = [(str(name), _text(host, name)) for name in names if host.exists(name)]
    return config.resolve((config.parse_file(text, name) for name, text in texts), options)


def _text(host: Host, name: Path) -> str:
    host.vouch(name)
    try:
        return host.read(name).decode()
    except UnicodeDecodeError:
        raise TinykdumpError(f"{name} is not text", "write it in UTF-8") from None
