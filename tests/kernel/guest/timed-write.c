// SPDX-License-Identifier: GPL-2.0-or-later
// timed-write FILE TEXT: writes with one system call, prints its microseconds and its error number.

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static long long now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
	int fd = argc == 3 ? open(argv[1], O_WRONLY) : -1;
	long long start;
	int error;

	if (fd < 0) {
		perror("timed-write FILE TEXT");
		return 2;
	}
	start = now_us();
	error = write(fd, argv[2], strlen(argv[2])) < 0 ? errno : 0;
	printf("%lld %d\n", now_us() - start, error);
	return error != 0;
}
