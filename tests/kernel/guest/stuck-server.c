// SPDX-License-Identifier: GPL-2.0-or-later
// stuck-server DIRECTORY: a FUSE server with one file.  It stops at each write to the file's start,
// like a server that hangs, until it gets SIGCONT.

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILE_NODE 2
#define MAX_WRITE (128 << 10)

static char request[MAX_WRITE + 4096];
static unsigned long long file_size;

static void reply(int fd, unsigned long long unique, int error, const void *data, size_t size)
{
	struct fuse_out_header header = {
		.len = sizeof(header) + size, .error = error, .unique = unique,
	};
	struct iovec parts[] = {
		{ &header, sizeof(header) }, { (void *)data, size },
	};

	if (writev(fd, parts, size ? 2 : 1) < 0)
		perror("stuck-server: reply");
}

static struct fuse_attr attributes(unsigned long long node)
{
	struct fuse_attr attr = { .ino = node, .nlink = 1, .blksize = 4096 };

	attr.mode = node == FILE_NODE ? S_IFREG | 0644 : S_IFDIR | 0755;
	attr.size = node == FILE_NODE ? file_size : 0;
	return attr;
}

static void initialize(int fd, unsigned long long unique)
{
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		// Writes make pages dirty in the cache; the kernel writes them back later.
		.flags = FUSE_WRITEBACK_CACHE | FUSE_BIG_WRITES,
		.max_write = MAX_WRITE,
		.max_background = 1024,
		.congestion_threshold = 1024,
		.time_gran = 1,
	};

	reply(fd, unique, 0, &out, sizeof(out));
}

static void look_up(int fd, const struct fuse_in_header *in, const char *name)
{
	struct fuse_entry_out out = {
		.nodeid = FILE_NODE, .entry_valid = 3600, .attr_valid = 3600,
	};

	out.attr = attributes(FILE_NODE);
	if (strcmp(name, "file"))
		reply(fd, in->unique, -ENOENT, NULL, 0);
	else
		reply(fd, in->unique, 0, &out, sizeof(out));
}

static void send_attributes(int fd, const struct fuse_in_header *in)
{
	struct fuse_attr_out out = { .attr_valid = 3600, .attr = attributes(in->nodeid) };

	reply(fd, in->unique, 0, &out, sizeof(out));
}

static void set_attributes(int fd, const struct fuse_in_header *in, const struct fuse_setattr_in *new)
{
	if (new->valid & FATTR_SIZE)
		file_size = new->size;
	send_attributes(fd, in);
}

static void take_data(int fd, const struct fuse_in_header *in, const struct fuse_write_in *data)
{
	struct fuse_write_out out = { .size = data->size };

	if (data->offset == 0)
		raise(SIGSTOP);
	if (file_size < data->offset + data->size)
		file_size = data->offset + data->size;
	reply(fd, in->unique, 0, &out, sizeof(out));
}

static void serve(int fd, const struct fuse_in_header *in, const void *arguments)
{
	struct fuse_open_out opened = { .fh = 1 };

	switch (in->opcode) {
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		// No answer is expected.
		break;
	case FUSE_INIT:
		initialize(fd, in->unique);
		break;
	case FUSE_LOOKUP:
		look_up(fd, in, arguments);
		break;
	case FUSE_GETATTR:
		send_attributes(fd, in);
		break;
	case FUSE_SETATTR:
		set_attributes(fd, in, arguments);
		break;
	case FUSE_OPEN:
		reply(fd, in->unique, 0, &opened, sizeof(opened));
		break;
	case FUSE_WRITE:
		take_data(fd, in, arguments);
		break;
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_RELEASE:
		reply(fd, in->unique, 0, NULL, 0);
		break;
	default:
		reply(fd, in->unique, -ENOSYS, NULL, 0);
	}
}

int main(int argc, char **argv)
{
	int fd = open("/dev/fuse", O_RDWR);
	char options[100];

	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	if (argc != 2 || fd < 0 || mount("stuck", argv[1], "fuse", 0, options)) {
		perror("stuck-server DIRECTORY");
		return 1;
	}
	while (read(fd, request, sizeof(request)) > 0)
		serve(fd, (void *)request, request + sizeof(struct fuse_in_header));
	perror("stuck-server: read");
	return 1;
}
