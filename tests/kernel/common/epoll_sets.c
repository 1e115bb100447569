// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an epoll set promises about its files: a descriptor in several sets,
 * several descriptors of a file in one, shared over fork, closed while watched,
 * and the ways to be told of events.
 *
 * guest: modules=fastsocket
 */
#include "sets.h"

#define MANY	20	/* more than any short cut of the kernel looks at */

TEST(descriptor_in_two_sets)
{
	int other, fd = readable(&other), one, two;

	module_need();
	one = new_set();
	two = new_set();
	CHECK_EQ(add(one, fd, 1), 0);
	CHECK_EQ(modify(two, fd, 2), ENOENT);
	CHECK_EQ(delete(two, fd), ENOENT);
	CHECK_EQ(add(two, fd, 2), 0);
	CHECK_EQ(add(one, fd, 9), EEXIST);
	CHECK_EQ(add(two, fd, 9), EEXIST);
	CHECK(reports(one, 1));
	CHECK(reports(two, 2));
	CHECK_EQ(modify(two, fd, 3), 0);
	CHECK(reports(one, 1));
	CHECK(reports(two, 3));
	CHECK_EQ(delete(one, fd), 0);
	CHECK_EQ(delete(one, fd), ENOENT);
	CHECK_EQ(modify(one, fd, 1), ENOENT);
	CHECK_EQ(ready(one, NULL), 0);
	CHECK(reports(two, 3));
	CHECK_EQ(add(one, fd, 4), 0);
	CHECK_EQ(delete(two, fd), 0);
	CHECK(reports(one, 4));
	CHECK_EQ(ready(two, NULL), 0);
}

TEST(descriptor_in_many_sets)
{
	int other, fd = readable(&other), sets[MANY], i;

	module_need();
	for (i = 0; i < MANY; i++) {
		sets[i] = new_set();
		CHECK_EQ(add(sets[i], fd, i), 0);
	}
	for (i = 0; i < MANY; i++) {
		CHECK_EQ(add(sets[i], fd, 99), EEXIST);
		CHECK(reports(sets[i], i));
		CHECK_EQ(modify(sets[i], fd, 100 + i), 0);
	}
	/* from both ends, so that what is left is found wherever it stands */
	for (i = 0; i < MANY / 2; i++) {
		CHECK_EQ(delete(sets[i], fd), 0);
		CHECK_EQ(delete(sets[MANY - 1 - i], fd), 0);
		CHECK_EQ(delete(sets[i], fd), ENOENT);
		CHECK_EQ(ready(sets[i], NULL), 0);
		CHECK_EQ(ready(sets[MANY - 1 - i], NULL), 0);
		if (i + 1 < MANY / 2)
			CHECK(reports(sets[i + 1], 101 + i));
	}
	for (i = 0; i < MANY; i++)
		CHECK_EQ(add(sets[i], fd, i), 0);
	close(fd);
	for (i = 0; i < MANY; i++)
		CHECK_EQ(ready(sets[i], NULL), 0);
}

TEST(set_of_many_files)
{
	enum { FILES = 200 };
	int set, fds[FILES], others[FILES], i;

	module_need();
	set = new_set();
	for (i = 0; i < FILES; i++) {
		fds[i] = readable(&others[i]);
		CHECK_EQ(add(set, fds[i], i), 0);
	}
	for (i = 0; i < FILES; i += 2)
		CHECK_EQ(delete(set, fds[i]), 0);
	for (i = 0; i < FILES; i++)
		CHECK_EQ(modify(set, fds[i], i), i % 2 ? 0 : ENOENT);
	for (i = 1; i < FILES - 2; i += 2)
		CHECK_EQ(delete(set, fds[i]), 0);
	CHECK(reports(set, FILES - 1));
}

/* Each descriptor of a file is watched for itself, and told of for itself. */
TEST(duplicates_in_one_set)
{
	int other, fd = readable(&other), set, copies[MANY], i;

	module_need();
	set = new_set();
	CHECK_EQ(add(set, fd, 1000), 0);
	for (i = 0; i < MANY; i++) {
		copies[i] = dup(fd);
		CHECK_EQ(modify(set, copies[i], i), ENOENT);
		CHECK_EQ(add(set, copies[i], i), 0);
		CHECK_EQ(add(set, copies[i], i), EEXIST);
	}
	CHECK_EQ(ready(set, NULL), MANY + 1);
	for (i = 0; i < MANY; i++)
		CHECK_EQ(modify(set, copies[i], 50 + i), 0);
	CHECK_EQ(delete(set, fd), 0);
	for (i = MANY - 1; i > 0; i--)
		CHECK_EQ(delete(set, copies[i]), 0);
	CHECK(reports(set, 50));
}

/*
 * A number that was closed while a duplicate keeps the file open: its item
 * stays, and is out of reach.
 */
TEST(closed_number_of_an_open_file)
{
	int other, another, fd = readable(&other), set, copy, reused;

	module_need();
	set = new_set();
	copy = dup(fd);
	CHECK_EQ(add(set, fd, 1), 0);
	close(fd);
	CHECK(reports(set, 1));
	CHECK_EQ(delete(set, fd), EBADF);
	CHECK_EQ(delete(set, copy), ENOENT);
	CHECK_EQ(modify(set, copy, 1), ENOENT);

	/* the number is another file's now */
	reused = readable(&another);
	NEED_EQ(reused, fd);
	CHECK_EQ(delete(set, reused), ENOENT);
	CHECK_EQ(add(set, reused, 2), 0);
	CHECK_EQ(ready(set, NULL), 2);
	CHECK_EQ(delete(set, reused), 0);
	CHECK(reports(set, 1));

	/* and now the file's again */
	NEED_EQ(dup2(copy, fd), fd);
	CHECK_EQ(modify(set, fd, 3), 0);
	CHECK(reports(set, 3));
	close(fd);
	close(copy);
	CHECK_EQ(ready(set, NULL), 0);
}

TEST(close_while_watched)
{
	int other, another, fd = readable(&other), one, two, reused;

	module_need();
	one = new_set();
	two = new_set();
	CHECK_EQ(add(one, fd, 1), 0);
	CHECK_EQ(add(two, fd, 1), 0);
	close(fd);
	CHECK_EQ(ready(one, NULL), 0);
	CHECK_EQ(ready(two, NULL), 0);
	reused = readable(&another);
	NEED_EQ(reused, fd);
	CHECK_EQ(modify(one, reused, 2), ENOENT);
	CHECK_EQ(add(one, reused, 2), 0);
	CHECK(reports(one, 2));
	CHECK_EQ(ready(two, NULL), 0);
}

TEST(set_is_closed_before_its_files)
{
	int other, fd = readable(&other), set, i;

	module_need();
	for (i = 0; i < 50; i++) {
		set = new_set();
		CHECK_EQ(add(set, fd, i), 0);
		CHECK(reports(set, i));
		close(set);
	}
	set = new_set();
	CHECK_EQ(add(set, fd, 7), 0);
	CHECK(reports(set, 7));
}

/* Parent and child have one set and one file, each its own descriptors. */
TEST(shared_over_fork)
{
	int other, fd = readable(&other), set, more, third;
	pid_t child;

	module_need();
	set = new_set();
	more = readable(&third);
	CHECK_EQ(add(set, fd, 1), 0);
	child = fork();
	if (!child) {
		CHECK_EQ(add(set, fd, 9), EEXIST);
		CHECK_EQ(modify(set, fd, 2), 0);
		CHECK_EQ(add(set, more, 3), 0);
		CHECK(reports(new_set(), 0) == false);
		/* these are not the last ones of either */
		close(fd);
		close(more);
		CHECK_EQ(ready(set, NULL), 2);
		close(set);
		_exit(0);
	}
	CHECK(ktap_child_fine(child));
	CHECK_EQ(ready(set, NULL), 2);
	CHECK_EQ(delete(set, more), 0);
	CHECK(reports(set, 2));

	child = fork();
	if (!child)
		_exit(delete(set, fd));
	CHECK(ktap_child_fine(child));
	CHECK_EQ(ready(set, NULL), 0);
	CHECK_EQ(delete(set, fd), ENOENT);

	/* the child has the only descriptor of a file in our set */
	CHECK_EQ(add(set, fd, 4), 0);
	child = fork();
	if (!child) {
		for (;;)
			pause();
	}
	close(fd);
	CHECK(reports(set, 4));
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	CHECK(WAIT_FOR(ready(set, NULL) == 0, 10));
}

TEST(every_kind_of_file)
{
	int set, kind, fds[2], i, count;

	module_need();
	set = new_set();
	for (kind = 0; kind < KINDS; kind++) {
		count = make(&kinds[kind], fds);
		for (i = 0; i < count; i++) {
			CHECK_EQ(add(set, fds[i], 1), 0);
			CHECK_EQ(add(set, fds[i], 1), EEXIST);
			CHECK_EQ(modify(set, fds[i], 2), 0);
			CHECK_EQ(delete(set, fds[i]), 0);
			CHECK_EQ(delete(set, fds[i]), ENOENT);
			CHECK_EQ(add(set, fds[i], 1), 0);
		}
		close_all(fds, count);
		CHECK_EQ(ready(set, NULL), 0);
	}
}

TEST(what_is_refused)
{
	int set, other, fd = readable(&other);
	int file = open("file", O_RDWR | O_CREAT, 0600);

	module_need();
	set = new_set();
	CHECK_EQ(add(set, set, 1), EINVAL);
	CHECK_EQ(add(fd, set, 1), EINVAL);
	CHECK_EQ(add(set, file, 1), EPERM);
	CHECK_EQ(add(set, 999, 1), EBADF);
	CHECK_EQ(add(999, fd, 1), EBADF);
	CHECK_EQ(control(set, 77, fd, EPOLLIN, 1), EINVAL);
	CHECK(epoll_ctl(set, EPOLL_CTL_ADD, fd, nowhere) < 0 &&
	      errno == EFAULT);
	CHECK_EQ(add(set, fd, 1), 0);
	CHECK(epoll_ctl(set, EPOLL_CTL_MOD, fd, nowhere) < 0 &&
	      errno == EFAULT);
	CHECK_EQ(epoll_ctl(set, EPOLL_CTL_DEL, fd, nowhere), 0);
}

TEST(level_edge_and_one_shot)
{
	int other, fd = readable(&other), set, i;
	char byte;

	module_need();
	set = new_set();
	CHECK_EQ(add(set, fd, 1), 0);
	for (i = 0; i < 3; i++)
		CHECK(reports(set, 1));
	/* no interest, no event; interest again, event again */
	CHECK_EQ(control(set, EPOLL_CTL_MOD, fd, 0, 2), 0);
	CHECK_EQ(ready(set, NULL), 0);
	CHECK_EQ(modify(set, fd, 3), 0);
	CHECK(reports(set, 3));
	CHECK_EQ(delete(set, fd), 0);

	/* once for what is there, once for each that comes */
	CHECK_EQ(control(set, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 4), 0);
	CHECK(reports(set, 4));
	CHECK_EQ(ready(set, NULL), 0);
	NEED(write(other, "y", 1) == 1);
	CHECK(reports(set, 4));
	CHECK_EQ(ready(set, NULL), 0);
	/* a change tells again what is there */
	CHECK_EQ(control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLET, 5), 0);
	CHECK(reports(set, 5));
	CHECK_EQ(ready(set, NULL), 0);

	/* silent after the first, until it is changed */
	CHECK_EQ(control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT, 6), 0);
	CHECK(reports(set, 6));
	NEED(write(other, "z", 1) == 1);
	CHECK_EQ(ready(set, NULL), 0);
	CHECK_EQ(control(set, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT, 7), 0);
	CHECK(reports(set, 7));
	CHECK_EQ(ready(set, NULL), 0);

	for (i = 0; i < 3; i++)
		NEED(read(fd, &byte, 1) == 1);
	CHECK_EQ(modify(set, fd, 8), 0);
	CHECK_EQ(ready(set, NULL), 0);
	close(other);
	CHECK(reports(set, 8));
}

/* Without a change each byte wakes who waits, whoever added the file. */
TEST(who_waits_is_woken)
{
	struct epoll_event event;
	int ends[2], set, i;
	pid_t child;
	char byte;

	module_need();
	set = new_set();
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	child = fork();
	if (!child) {
		for (i = 0; i < 200; i++) {
			NEED_EQ(epoll_wait(set, &event, 1, -1), 1);
			NEED(read(ends[0], &byte, 1) == 1);
			NEED(write(ends[0], &byte, 1) == 1);
		}
		_exit(0);
	}
	usleep(20 * 1000);
	CHECK_EQ(add(set, ends[0], 1), 0);
	for (i = 0; i < 200; i++) {
		NEED(write(ends[1], "x", 1) == 1);
		NEED(read(ends[1], &byte, 1) == 1);
	}
	CHECK(ktap_child_fine(child));
}
