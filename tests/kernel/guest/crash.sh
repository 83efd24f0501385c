# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# A crash kernel boots in a region that was reserved, freed and reserved again.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

set_mib 64 && set_mib 0 && set_mib 128 && set_mib 112 || exit 1
figure region "$(region)"
load "$(parameter call)" || exit 1
echo c > /proc/sysrq-trigger
