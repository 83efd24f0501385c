# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel series pstore-kexec-console, in QEMU: what is kept of a crash kernel's log."""
