# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that is measured and not asserted: `make bench`."""

import tempfile
from pathlib import Path

from tests.bench import cpu, floor
from tests.vm import rootfs


def main() -> None:
    """Print each figure as soon as it is known."""
    print(f"tinykdump -b, warm: {cpu.build_seconds(rootfs.build()):.2f} s of CPU", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        found = floor.search(Path(directory))
    print(
        f"smallest reservation that captures: {found.smallest} MiB; tinykdump reserves "
        f"{found.computed} MiB, {found.computed / found.smallest:.2f} times that"
    )


if __name__ == "__main__":
    main()
