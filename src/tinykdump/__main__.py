# SPDX-License-Identifier: GPL-2.0-or-later
"""The entry point of python3 -m tinykdump, which src/tinykdump.sh runs."""

import sys

from tinykdump.cli import main
from tinykdump.report import interruptible, legible, piped

if __name__ == "__main__":
    interruptible()
    legible()
    with piped():
        sys.exit(main())
