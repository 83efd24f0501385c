# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel side of tinykdump: patch series, configurations, and the code that builds kernels."""
