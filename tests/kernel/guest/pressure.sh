# shellcheck shell=sh
# Growing while memory is full of pages that have to be moved out of the way:
# files in tmpfs, which cannot be dropped, and processes that come and go.
# shellcheck source=tests/kernel/guest/lib.sh
. /guest/lib.sh

rounds=$(sed -n 's/.*\<rounds=\([0-9]*\).*/\1/p' /proc/cmdline)
share=$(($(meminfo MemAvailable) * 45 / 100 / 1024))
dd if=/dev/zero of=/tmp/ballast bs=1M count=$share 2>/dev/null

churn()
{
	while [ ! -e /tmp/stop ]; do
		sort /etc/services /proc/self/maps /init
		dd if=/dev/zero of="/tmp/churn.$1" bs=64k count=64
	done >/dev/null 2>&1
}

now()
{
	sed 's/\([0-9]*\)\.\([0-9]*\).*/\1\2/' /proc/uptime
}

churn 1 &
churn 2 &

failed=0
for _ in $(seq "$rounds"); do
	before=$(now)
	set_mib 96 || failed=$((failed + 1))
	echo $((($(now) - before) * 10))
	set_mib 0
done > /tmp/times
touch /tmp/stop
wait

figure rounds "$rounds"
figure failed "$failed"
figure median_ms "$(sort -n /tmp/times | sed -n "$((rounds / 2 + 1))p")"
figure worst_ms "$(sort -n /tmp/times | tail -n 1)"

ktap_print_header
ktap_set_plan 3
ktap_test_result "all_grew" test "$failed" = 0
ktap_test_result "all_given_back" size_is 0
ktap_test_result "no_warning" test "$(dmesg | grep -c 'WARNING:\|BUG:\|Oops')" = 0
ktap_finished
