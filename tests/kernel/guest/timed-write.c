// SPDX-License-Identifier: GPL-2.0-or-later
// timed-write FILE TEXT [SECONDS]: writes TEXT with one system call.  While that fails, retries for
// SECONDS, and drops caches and empty slabs now and then, as tinykdump does.  Prints the
// microseconds in all, the last error number, the number of writes, and the microseconds of the
// longest one.

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// As in reservation.py: seconds between tries, doubled each time up to the longest pause.
#define FIRST_PAUSE 0.1
#define LONGEST_PAUSE 2.0
// Seconds without success until the caches are dropped, and until they are dropped again
#define BEFORE_DROPPING 10.0

static long long now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static void put(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		perror(name);
	if (fd >= 0)
		close(fd);
}

static void drop_caches(void)
{
	glob_t slabs;

	put("/proc/sys/vm/drop_caches", "3");
	if (glob("/sys/kernel/slab/*/shrink", 0, NULL, &slabs)) {
		fputs("no slab can be shrunk\n", stderr);
		return;
	}
	for (size_t i = 0; i < slabs.gl_pathc; i++)
		put(slabs.gl_pathv[i], "1");
	globfree(&slabs);
}

int main(int argc, char **argv)
{
	double pause = FIRST_PAUSE, patience = argc == 4 ? strtod(argv[3], NULL) : 0;
	int fd = argc == 3 || argc == 4 ? open(argv[1], O_WRONLY) : -1;
	long long start = now_us(), longest = 0;
	double drop_at = BEFORE_DROPPING;
	int error, writes = 0;

	if (fd < 0) {
		perror("timed-write FILE TEXT [SECONDS]");
		return 2;
	}
	for (;;) {
		long long begin = now_us();

		error = pwrite(fd, argv[2], strlen(argv[2]), 0) < 0 ? errno : 0;
		writes++;
		if (now_us() - begin > longest)
			longest = now_us() - begin;
		if (!error || now_us() - start + pause * 1e6 > patience * 1e6)
			break;
		if (error == ENOMEM && now_us() - start >= drop_at * 1e6) {
			drop_caches();
			drop_at = (now_us() - start) / 1e6 + BEFORE_DROPPING;
		}
		usleep(pause * 1e6);
		pause = pause * 2 < LONGEST_PAUSE ? pause * 2 : LONGEST_PAUSE;
	}
	printf("%lld %d %d %lld\n", now_us() - start, error, writes, longest);
	return error != 0;
}
