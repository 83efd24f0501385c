#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The command. -I: root runs it, so Python must ignore the caller's environment and directory.
exec "${TINYKDUMP_PYTHON:-/usr/bin/python3}" -I -m tinykdump "$@"
