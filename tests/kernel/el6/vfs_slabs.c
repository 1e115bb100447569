// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=150
 *
 * Objects in the slabs of sockets, files and names return to where they were
 * after thousands were made: what a count could miss. And the numbers that
 * sysctl(2) gives are those of /proc.
 */
#include "files.h"

#include <sys/syscall.h>

static const char *const slabs[] = {
	"sock_inode_cache", "dentry", "filp", "inode_cache", "TCP", "TCPv6",
	"UDP", "UNIX", "eventpoll_epi",
};

#define SLABS	((int)(sizeof(slabs) / sizeof(slabs[0])))

/* Objects of a slab that are in use; 0 when there is no such slab. */
static long in_use(const char *name)
{
	static char text[65536];
	char *line;
	long used;

	ktap_read("/proc/slabinfo", text, sizeof(text));
	for (line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, strlen(name)) == 0 &&
		    line[strlen(name)] == ' ') {
			used = 0;
			sscanf(line + strlen(name), "%ld", &used);
			return used;
		}
	}
	return 0;
}

/*
 * Every CPU keeps some freed objects for itself, which count as used: a limit
 * far below what a leak would leave. drop_caches takes unused names away.
 */
#define SLACK	600

static bool fell_to(const char *name, long limit)
{
	drop_caches();
	return in_use(name) <= limit;
}

TEST_WITHIN(slabs_return, 100)
{
	enum { EACH = 3000 };
	long before[SLABS];
	int i, j, fds[2], ends[2], over[2], count;

	if (!in_use("dentry"))
		SKIP("no /proc/slabinfo");
	drop_caches();
	for (i = 0; i < SLABS; i++)
		before[i] = in_use(slabs[i]);
	for (i = 0; i < QUICK_KINDS; i++) {
		for (j = 0; j < EACH; j++) {
			count = make(&kinds[i], fds);
			close_all(fds, count);
		}
	}
	for (j = 0; j < EACH; j++) {
		make_socketpair(over);
		make_pipe(ends);
		NEED(send_fd(over[0], ends[0]));
		close_all(over, 2);
		close_all(ends, 2);
	}
	for (i = 0; i < SLABS; i++) {
		CHECK(WAIT_FOR(fell_to(slabs[i], before[i] + SLACK), 20));
		NOTE("%s: %ld before, %ld after", slabs[i], before[i],
		     in_use(slabs[i]));
	}
}

TEST(the_slab_counts_what_is_open)
{
	enum { COUNT = 3000 };
	long before = in_use("sock_inode_cache");
	int i, fds[2];

	for (i = 0; i < COUNT; i++)
		NEED(make_tcp(fds));
	CHECK(in_use("sock_inode_cache") >= before + COUNT - SLACK);
}

struct sysctl_arguments {
	int *name;
	int names;
	void *old;
	size_t *old_length;
	void *new;
	size_t new_length;
	unsigned long unused[4];
};

/* CTL_FS and the numbers of its files, from linux/sysctl.h of that time. */
static bool sysctl_agrees(int number, const char *path, int count)
{
	int name[2] = { 5, number }, values[8], i;
	size_t length = count * sizeof(int);
	struct sysctl_arguments arguments = {
		.name = name, .names = 2, .old = values, .old_length = &length,
	};

	if (syscall(SYS__sysctl, &arguments) < 0) {
		if (errno == ENOSYS)
			SKIP("no sysctl(2) in this kernel");
		NOTE("sysctl(2) for %s: %s", path, strerror(errno));
		return false;
	}
	for (i = 0; i < count; i++) {
		long shown = number_in(path, i);

		NOTE("%s, number %d: %d by sysctl(2), %ld in /proc", path, i,
		     values[i], shown);
		/* Reading /proc costs an inode or two. */
		if (labs(values[i] - shown) > 20)
			return false;
	}
	return true;
}

TEST(sysctl_counts_like_proc)
{
	int i, fds[2];

	for (i = 0; i < 1000; i++)
		NEED(make_tcp(fds));
	CHECK(sysctl_agrees(1, "/proc/sys/fs/inode-nr", 2));
	CHECK(sysctl_agrees(2, "/proc/sys/fs/inode-state", 2));
	CHECK(sysctl_agrees(8, "/proc/sys/fs/dentry-state", 2));
	CHECK(inodes() > 1000);
}

/* The numbers are read only, and a part of them can be read. */
TEST(counts_are_read_like_files)
{
	static const char *const paths[] = { "/proc/sys/fs/inode-nr",
					     "/proc/sys/fs/inode-state",
					     "/proc/sys/fs/dentry-state" };
	static const int numbers[] = { 2, 7, 6 };
	char text[128], byte;
	int i, fd, words;
	char *at;

	for (i = 0; i < 3; i++) {
		CHECK(!access(paths[i], R_OK));
		fd = open(paths[i], O_WRONLY);
		CHECK(fd < 0 || write(fd, "1", 1) < 0);
		close(fd);
		ktap_read(paths[i], text, sizeof(text));
		words = 0;
		for (at = strtok(text, "\t \n"); at; at = strtok(NULL, "\t \n"))
			words++;
		CHECK_EQ(words, numbers[i]);
		fd = open(paths[i], O_RDONLY);
		CHECK_EQ(read(fd, &byte, 1), 1);
		close(fd);
	}
}
