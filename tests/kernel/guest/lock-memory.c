// SPDX-License-Identifier: GPL-2.0-or-later
// lock-memory MIB: locks that much anonymous memory, prints "locked", and waits until it is killed.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	size_t size = argc == 2 ? strtoul(argv[1], NULL, 0) << 20 : 0;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED || mlock(memory, size)) {
		perror("lock-memory MIB");
		return 1;
	}
	// Pages with content, which a move must not lose.
	memset(memory, 0x5a, size);
	puts("locked");
	fflush(stdout);
	for (;;)
		pause();
}
