# SPDX-License-Identifier: GPL-2.0-or-later
"""What python3 -m tinykdump starts, and src/tinykdump.sh with it: the command line."""

import sys

from tinykdump.cli import main
from tinykdump.report import interruptible

if __name__ == "__main__":
    interruptible()
    sys.exit(main())
