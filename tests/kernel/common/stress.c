// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=150
 *
 * Processes that make and close sockets, pipes and anonymous files on every
 * CPU, while others look at them through /proc, pass them on, drop caches and
 * flush. A given number of rounds, whatever time it takes; what counts is that
 * the kernel has nothing to say and that nothing is left.
 */
#include "files.h"

#include <dirent.h>
#include <pthread.h>

#define MAKERS	3
#define ROUNDS	ktap_rounds(2000)

static volatile bool *stop;
static volatile int *rounds;	/* of all makers, where a test wants to know */

static void make_and_close(void)
{
	int fds[64], used, round, i, over[2];

	for (round = 0; round < ROUNDS; round++) {
		used = 0;
		for (i = 0; i < 8; i++)
			used += make(&kinds[(round + i) % QUICK_KINDS], &fds[used]);
		if (round % 16 == 0) {
			make_socketpair(over);
			NEED(send_fd(over[0], fds[0]));
			if (round % 32)
				close(receive_fd(over[1]));
			close_all(over, 2);
		}
		close_all(fds, used);
		if (rounds)
			++*rounds;
	}
}

static void look_at_everything(void)
{
	char path[600], text[256];
	struct dirent *one, *fd;
	struct stat seen;
	DIR *all, *fds;
	ssize_t length;
	long links = 0;

	while (!*stop) {
		all = opendir("/proc");
		NEED(all != NULL);
		while ((one = readdir(all))) {
			if (atoi(one->d_name) <= 0)
				continue;
			snprintf(path, sizeof(path), "/proc/%s/fd",
				 one->d_name);
			fds = opendir(path);
			while (fds && (fd = readdir(fds))) {
				snprintf(path, sizeof(path), "/proc/%s/fd/%s",
					 one->d_name, fd->d_name);
				length = readlink(path, text, sizeof(text));
				links += length > 0;
				/* Follows the link: takes a reference. */
				stat(path, &seen);
				if (S_ISFIFO(seen.st_mode))
					close(open(path, O_RDONLY | O_NONBLOCK));
			}
			if (fds)
				closedir(fds);
		}
		closedir(all);
		ktap_read("/proc/net/tcp", text, sizeof(text));
		ktap_read("/proc/net/unix", text, sizeof(text));
		ktap_read("/proc/sys/fs/inode-state", text, sizeof(text));
		ktap_read("/proc/sys/fs/dentry-state", text, sizeof(text));
	}
	CHECK(links > 0);
}

static void drop_and_flush(void)
{
	while (!*stop) {
		drop_caches();
		sync();
		usleep(20000);
	}
	CHECK(true);
}

static pid_t in_child(void (*work)(void))
{
	pid_t child = fork();

	if (!child) {
		work();
		_exit(0);
	}
	return child;
}

static void *shared_page(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	NEED(page != MAP_FAILED);
	return page;
}

TEST_WITHIN(makers_and_onlookers, 100)
{
	pid_t makers[MAKERS], lookers[3];
	long before;
	int i;

	stop = shared_page();
	drop_caches();
	before = inodes();
	for (i = 0; i < MAKERS; i++)
		makers[i] = in_child(make_and_close);
	lookers[0] = in_child(look_at_everything);
	lookers[1] = in_child(look_at_everything);
	lookers[2] = in_child(drop_and_flush);
	for (i = 0; i < MAKERS; i++)
		CHECK(ktap_child_fine(makers[i]));
	*stop = true;
	for (i = 0; i < 3; i++)
		CHECK(ktap_child_fine(lookers[i]));
	CHECK(WAIT_FOR(({
		drop_caches();
		inodes() <= before + 200;
	}), 20));
	NOTE("inodes: %ld before, %ld after", before, inodes());
}

/*
 * Threads of one process: a table of descriptors that all change, so that a
 * lookup by one meets a close by the other.
 */
static void *make_in_thread(void *unused)
{
	int fds[2], i, count;

	for (i = 0; i < 10 * ROUNDS; i++) {
		count = kinds[i % QUICK_KINDS].make(fds);
		if (count)
			close_all(fds, count);
	}
	return unused;
}

static void *look_in_thread(void *unused)
{
	struct stat seen;
	int fd, other;

	while (!*stop) {
		for (fd = 3; fd < 20; fd++) {
			link_in(0, fd);
			fstat(fd, &seen);
			other = dup(fd);
			if (other >= 0)
				close(other);
		}
	}
	return unused;
}

TEST_WITHIN(threads_share_a_table, 60)
{
	pthread_t makers[2], looker;
	int i;

	stop = shared_page();
	NEED_EQ(pthread_create(&looker, NULL, look_in_thread, NULL), 0);
	for (i = 0; i < 2; i++)
		NEED_EQ(pthread_create(&makers[i], NULL, make_in_thread, NULL),
			0);
	for (i = 0; i < 2; i++)
		CHECK_EQ(pthread_join(makers[i], NULL), 0);
	*stop = true;
	CHECK_EQ(pthread_join(looker, NULL), 0);
}

/* Processes die in the middle of it. */
TEST_WITHIN(killed_in_the_middle, 60)
{
	long before;
	pid_t child;
	int i;

	rounds = shared_page();
	drop_caches();
	before = inodes();
	for (i = 0; i < 40; i++) {
		*rounds = 0;
		child = in_child(make_and_close);
		CHECK(WAIT_FOR(*rounds >= 5 * (i % 10), 20));
		kill(child, SIGKILL);
		CHECK(waitpid(child, NULL, 0) == child);
	}
	CHECK(WAIT_FOR(({
		drop_caches();
		inodes() <= before + 200;
	}), 20));
}
