# SPDX-License-Identifier: GPL-2.0-or-later
"""The crash image: what only a build uses. The rest asks build.py, and reads manifest.py."""
