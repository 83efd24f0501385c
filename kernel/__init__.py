# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel side of tinykdump: series, configurations, releases, and what builds a kernel."""
