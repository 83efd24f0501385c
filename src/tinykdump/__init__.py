# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump: encrypted kernel crash dumps on a USB stick."""

# The one place of it: tools/release.py sets it, and tests/rpm/test_release.py looks for copies.
__version__ = "0.1.0"
