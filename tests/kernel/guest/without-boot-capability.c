// SPDX-License-Identifier: GPL-2.0-or-later
// without-boot-capability PROGRAM [ARGUMENT...]: runs PROGRAM as root without CAP_SYS_BOOT.

#include <linux/capability.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc < 2 || prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT, 0, 0, 0)) {
		perror("without-boot-capability PROGRAM");
		return 2;
	}
	// At execve(), root gets the capabilities of the bounding set.
	execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 2;
}
