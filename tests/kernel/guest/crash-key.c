// SPDX-License-Identifier: GPL-2.0-or-later
// crash-key add: adds a logon key of 64 bytes, "test:crash-key", to root's keyring, where the kernel
// looks when it loads a crash kernel.
// crash-key revoke: revokes it; the kernel then clears it.
// crash-key count FILE: prints how many copies of the key are in FILE.

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// A logon key is named SERVICE:NAME.
#define NAME "test:crash-key"
#define SIZE 64
#define CHUNK (1 << 20)

// Made when it is needed: the program file must not have it.
static void make_key(unsigned char *key)
{
	for (unsigned int i = 0; i < SIZE; i++)
		key[i] = 197 * (i + 1) ^ i >> 1;
}

static int add_key(void)
{
	unsigned char key[SIZE];

	make_key(key);
	return syscall(SYS_add_key, "logon", NAME, key, SIZE, KEY_SPEC_USER_KEYRING) < 0;
}

static int revoke_key(void)
{
	long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, "logon", NAME, 0);

	return key < 0 || syscall(SYS_keyctl, KEYCTL_REVOKE, key) < 0;
}

// The key lies in one page, so a copy does not cross the end of a chunk.
static int count_key(const char *file)
{
	static unsigned char chunk[CHUNK];
	unsigned char key[SIZE];
	ssize_t length;
	int copies = 0, fd = open(file, O_RDONLY);

	if (fd < 0)
		return 1;
	make_key(key);
	while ((length = read(fd, chunk, CHUNK)) > 0) {
		unsigned char *at = chunk, *end = chunk + length;

		while ((at = memmem(at, end - at, key, SIZE))) {
			copies++;
			at += SIZE;
		}
	}
	printf("%d\n", copies);
	return length < 0;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";
	int failed = 1;

	if (!strcmp(command, "add"))
		failed = add_key();
	else if (!strcmp(command, "revoke"))
		failed = revoke_key();
	else if (!strcmp(command, "count") && argc == 3)
		failed = count_key(argv[2]);
	if (failed)
		perror("crash-key add|revoke|count FILE");
	return failed;
}
