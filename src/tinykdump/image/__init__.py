# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the crash image: build.py plans and packs it, manifest.py describes it."""
