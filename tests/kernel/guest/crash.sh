# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# A region that has grown twice holds a crash kernel that boots.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

set_mib 64 && set_mib 112 || exit 1
figure region "$(region)"
load "$(parameter call)" || exit 1
echo c > /proc/sysrq-trigger
