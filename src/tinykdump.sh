#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The command: Python without the caller's environment and directories (-I), since root runs it.
exec "${TINYKDUMP_PYTHON:-/usr/bin/python3}" -I -m tinykdump "$@"
