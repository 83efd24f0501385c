# SPDX-License-Identifier: GPL-2.0-or-later
"""tinykdump: encrypted kernel crash dumps on a USB stick."""

__version__ = "0.1.0"
