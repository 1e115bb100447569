// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=400
 *
 * What the kernel counts: inodes, dentries and files rise by what is opened
 * and return to where they were, on whatever CPU things are closed. Slabs and
 * mounts tell of a leak that the counts would not show.
 */
#include "files.h"

#include <sched.h>
#include <sys/mount.h>

/*
 * Nothing else runs in the guest, but reading the counts opens files of /proc.
 * The count of files is not exact: each CPU keeps up to 32 for itself, or twice
 * the number of CPUs if that is more.
 */
#define SLACK		40
#define FILES_SLACK	200

struct counts {
	long inodes, dentries, files;
};

static struct counts counts_now(void)
{
	struct counts now = { 0 };

	drop_caches();
	now.inodes = inodes();
	now.dentries = dentries();
	now.files = files();
	return now;
}

static bool is_near(long value, long wanted)
{
	return value >= wanted - SLACK && value <= wanted + SLACK;
}

static bool files_are_near(long value, long wanted)
{
	return value >= wanted - FILES_SLACK && value <= wanted + FILES_SLACK;
}

static bool returned(struct counts before)
{
	struct counts now = counts_now();

	return is_near(now.inodes, before.inodes) &&
	       is_near(now.dentries, before.dentries) &&
	       files_are_near(now.files, before.files);
}

static void note_counts(const char *when, struct counts counts)
{
	NOTE("%s: %ld inodes, %ld dentries, %ld files", when, counts.inodes,
	     counts.dentries, counts.files);
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	NEED_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
}

TEST(open_files_are_counted)
{
	enum { EACH = 2000 };
	struct counts before = counts_now(), during;
	int i, fds[2];

	for (i = 0; i < EACH; i++)
		NEED(make_tcp(fds));
	for (i = 0; i < EACH; i++)
		NEED(make_pipe(fds));
	during = counts_now();
	note_counts("before", before);
	note_counts("with 2,000 sockets and 2,000 pipes", during);
	/* A pipe is one inode and one dentry, and two files. */
	CHECK(is_near(during.inodes - before.inodes, 2 * EACH));
	CHECK(files_are_near(during.files - before.files, 3 * EACH));
	CHECK(is_near(during.dentries - before.dentries, 2 * EACH));
	for (i = 3; i < 3 + 3 * EACH + 64; i++)
		close(i);
	CHECK(WAIT_FOR(returned(before), 20));
	note_counts("after", counts_now());
}

TEST_WITHIN(every_kind_returns, 90)
{
	enum { EACH = 1000 };
	struct counts before;
	int i, j, fds[2], count;

	for (i = 0; i < KINDS; i++) {
		before = counts_now();
		for (j = 0; j < (i < QUICK_KINDS ? EACH : 50); j++) {
			count = make(&kinds[i], fds);
			close_all(fds, count);
		}
		if (!CHECK(WAIT_FOR(returned(before), 20))) {
			NOTE("%s", kinds[i].name);
			note_counts("before", before);
			note_counts("after", counts_now());
		}
	}
}

TEST(closed_on_another_cpu)
{
	enum { EACH = 1000 };
	struct counts before = counts_now();
	int i, fds[2], first;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP("one CPU");
	pin(0);
	NEED(make_tcp(fds));
	first = fds[0];
	for (i = 1; i < EACH; i++)
		NEED(make_tcp(fds));
	pin(1);
	for (i = 0; i < EACH; i++)
		CHECK_EQ(close(first + i), 0);
	CHECK(WAIT_FOR(returned(before), 20));
	/* Never negative, whichever CPU closed more than it opened. */
	CHECK(inodes() > 0);
	CHECK(dentries() > 0);
}

static const char online[] = "/sys/devices/system/cpu/cpu1/online";

static void take_a_cpu_away(int count)
{
	struct counts before = counts_now(), during;
	int i, fds[2], first;

	pin(1);
	NEED(make_tcp(fds));
	first = fds[0];
	for (i = 1; i < count; i++)
		NEED(make_tcp(fds));
	pin(0);
	NEED(ktap_write(online, "0"));
	during = counts_now();
	CHECK(is_near(during.inodes - before.inodes, count));
	CHECK(is_near(during.dentries - before.dentries, count));
	for (i = 0; i < count; i++)
		CHECK_EQ(close(first + i), 0);
	CHECK(WAIT_FOR(returned(before), 20));
	NEED(ktap_write(online, "1"));
	CHECK(WAIT_FOR(returned(before), 20));
	note_counts("before", before);
	note_counts("with sockets open and the CPU away", during);
	note_counts("after", counts_now());
}

/*
 * The counts of a CPU that goes away stay in the sum. Its own part may happen
 * to be nothing, but not with two different numbers.
 */
TEST_WITHIN(a_cpu_goes_and_comes_back, 60)
{
	if (access(online, W_OK) || sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP("no CPU to take away");
	take_a_cpu_away(500);
	take_a_cpu_away(1500);
}

/* Short connections, so that every step of a socket's life is in it. */
TEST_WITHIN(connections_leave_nothing, 90)
{
	int connections = ktap_rounds(20000);
	struct counts before = counts_now();
	int i, port, listener = listen_any(&port), client, server;
	struct linger hard = { 1, 0 };

	for (i = 0; i < connections; i++) {
		client = connect_to(port);
		server = accept(listener, NULL, NULL);
		NEED(server >= 0);
		/* Reset every one, or as many wait for a minute each. */
		setsockopt(client, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		NEED(carries(server, client));
		NEED_EQ(close(client), 0);
		NEED_EQ(close(server), 0);
	}
	close(listener);
	CHECK(WAIT_FOR(returned(before), 20));
	note_counts("before", before);
	note_counts("after", counts_now());
}

TEST(connections_nobody_accepted)
{
	enum { WAITING = 100 };
	struct counts before = counts_now();
	int i, port, listener = listen_any(&port), clients[WAITING];

	for (i = 0; i < WAITING; i++)
		clients[i] = connect_to(port);
	close(listener);
	for (i = 0; i < WAITING; i++)
		close(clients[i]);
	CHECK(WAIT_FOR(returned(before), 20));
}

TEST(a_killed_process_leaves_nothing)
{
	struct counts before = counts_now();
	int i, j, ready[2], fds[2];
	pid_t child;
	char byte;

	for (i = 0; i < 5; i++) {
		make_pipe(ready);
		child = fork();
		if (!child) {
			for (j = 0; j < 2000; j++)
				make(&kinds[j % QUICK_KINDS], fds);
			NEED_EQ(write(ready[1], "x", 1), 1);
			pause();
			_exit(0);
		}
		close(ready[1]);
		NEED_EQ(read(ready[0], &byte, 1), 1);
		close(ready[0]);
		CHECK(inodes() > before.inodes + 500);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	CHECK(WAIT_FOR(returned(before), 20));
}

/*
 * A mount ends while sockets and pipes are open: they are on no superblock
 * that has to be searched for busy inodes. A fifo of the mount keeps it busy.
 */
TEST(file_systems_unmount_while_they_are_open)
{
	int fds[KINDS][2], i, fifo;

	NEED_EQ(mkdir("mount", 0700), 0);
	NEED_EQ(mount("tmpfs", "mount", "tmpfs", 0, NULL), 0);
	NEED_EQ(mkfifo("mount/fifo", 0600), 0);
	fifo = open("mount/fifo", O_RDWR);
	NEED(fifo >= 0);
	for (i = 0; i < KINDS; i++)
		make(&kinds[i], fds[i]);
	CHECK_EQ(umount("mount"), -1);
	CHECK_EQ(errno, EBUSY);
	close(fifo);
	CHECK_EQ(umount("mount"), 0);
	CHECK(inode_of(fds[0][0]) != 0);
	for (i = 0; i < 20; i++) {
		NEED_EQ(mount("tmpfs", "mount", "tmpfs", 0, NULL), 0);
		close(open("mount/file", O_CREAT | O_WRONLY, 0600));
		NEED_EQ(umount("mount"), 0);
	}
}

/* Lists of dentries and inodes are walked here; ours must not be on them. */
TEST(caches_drop_while_they_are_open)
{
	int fds[KINDS][2], i, round;
	unsigned long long before[KINDS];

	for (i = 0; i < KINDS; i++) {
		make(&kinds[i], fds[i]);
		before[i] = inode_of(fds[i][0]);
	}
	for (round = 0; round < 20; round++) {
		drop_caches();
		sync();
	}
	for (i = 0; i < KINDS; i++)
		CHECK_EQ(inode_of(fds[i][0]), before[i]);
	for (i = 0; i < KINDS; i++)
		CHECK(*link_in(0, fds[i][0]));
}
