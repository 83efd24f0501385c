# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel side of tinykdump: the series, a kernel to test them in, and their checks."""
