# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells what is in a vmcore: reader.py reads it with drgn, the rest is pure.

A vmcore is hostile input. So each loop and each size has a limit, and each text is made printable
where it is read.
"""
