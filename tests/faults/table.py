# SPDX-License-Identifier: GPL-2.0-or-later
"""The fault matrix: one row for each scenario."""

from tests.faults import crash_kernel, hostile, services, sticks, system_kernel

ROWS = (*sticks.ROWS, *crash_kernel.ROWS, *system_kernel.ROWS, *services.ROWS, *hostile.ROWS)
