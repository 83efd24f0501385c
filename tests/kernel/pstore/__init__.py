# SPDX-License-Identifier: GPL-2.0-or-later
"""The series pstore-kexec-console and -records, in QEMU: what is kept of a crash kernel's log."""
