# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump: encrypted kernel crash dumps on a USB stick."""

# tools/release.py sets the version here; tests/rpm/test_release.py checks for copies elsewhere.
__version__ = "0.1.0"
