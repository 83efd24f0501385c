// SPDX-License-Identifier: GPL-2.0-or-later
// pin-pages MIB START NUMBER: fills that much memory, and puts the pages that are in the NUMBER page
// frames from START into pipes, because pages in a pipe cannot be moved.  Prints how many, and waits
// until it is killed.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096
// One page in each 8 MiB is enough.
#define APART 2048

static uint64_t frame_of(int pagemap, const char *address)
{
	uint64_t entry = 0;

	if (pread(pagemap, &entry, sizeof(entry), (uintptr_t)address / PAGE * sizeof(entry)) < 0)
		perror("pin-pages: pagemap");
	return entry & ((1ULL << 55) - 1);
}

static int pin(int pipe, char *address)
{
	struct iovec page = { address, PAGE };

	return vmsplice(pipe, &page, 1, SPLICE_F_NONBLOCK) == PAGE;
}

int main(int argc, char **argv)
{
	size_t size = argc == 4 ? strtoul(argv[1], NULL, 0) << 20 : 0;
	uint64_t start = size ? strtoul(argv[2], NULL, 0) : 0;
	uint64_t end = size ? start + strtoul(argv[3], NULL, 0) : 0;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	uint64_t last = 0;
	int pinned = 0;
	int pipes[2];

	if (memory == MAP_FAILED || pagemap < 0 || pipe(pipes)) {
		perror("pin-pages MIB START NUMBER");
		return 1;
	}
	memset(memory, 0x5a, size);
	for (size_t offset = 0; offset < size; offset += PAGE) {
		uint64_t frame = frame_of(pagemap, memory + offset);

		if (frame < start || frame >= end || frame / APART == last)
			continue;
		last = frame / APART;
		pinned += pin(pipes[1], memory + offset);
	}
	munmap(memory, size);
	printf("%d\n", pinned);
	fflush(stdout);
	for (;;)
		pause();
}
