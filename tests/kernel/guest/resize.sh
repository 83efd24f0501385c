# shellcheck shell=sh
# No parameter, or one for the area: nothing is taken, and everything can be.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

figure MemTotal "$(meminfo MemTotal)"
figure MemAvailable "$(meminfo MemAvailable)"
figure CmaTotal "$(meminfo CmaTotal)"
figure crash_size "$(cat $KEXEC/crash_size)"
figure crash_size_max "$(cat $KEXEC/crash_size_max)"
figure iomem_lines "$(grep -c 'Crash kernel' /proc/iomem)"

set_mib 64
figure region "$(region)"
set_mib 0

ROUNDS=${ROUNDS:-$(sed -n 's/.*\<rounds=\([0-9]*\).*/\1/p' /proc/cmdline)}
export ROUNDS
sh /selftests/kexec/test_crash_resize.sh
