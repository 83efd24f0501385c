# SPDX-License-Identifier: GPL-2.0-or-later
"""The fault matrix: one row for each scenario."""

from tests.faults import crash_kernel, endurance, hostile, machines, services, sticks, system_kernel

ROWS = (
    *sticks.ROWS, *crash_kernel.ROWS, *system_kernel.ROWS, *machines.ROWS, *services.ROWS,
    *hostile.ROWS, *endurance.ROWS,
)  # fmt: skip
