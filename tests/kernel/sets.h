/* SPDX-License-Identifier: GPL-2.0-only */
/* Epoll sets: what tests of them share. */
#ifndef SETS_H
#define SETS_H

#include "files.h"
#include "module.h"

#define FAST_SWITCH	"/sys/module/fastsocket/parameters/enable_fast_epoll"

static inline int new_set(void)
{
	int set = epoll_create1(0);

	NEED(set >= 0);
	return set;
}

/* 0 or the error of epoll_ctl() */
static inline int control(int set, int op, int fd, uint32_t events,
			  uint64_t data)
{
	struct epoll_event event = { .events = events, .data.u64 = data };

	return epoll_ctl(set, op, fd, &event) ? errno : 0;
}

static inline int add(int set, int fd, uint64_t data)
{
	return control(set, EPOLL_CTL_ADD, fd, EPOLLIN, data);
}

static inline int modify(int set, int fd, uint64_t data)
{
	return control(set, EPOLL_CTL_MOD, fd, EPOLLIN, data);
}

static inline int delete(int set, int fd)
{
	return control(set, EPOLL_CTL_DEL, fd, 0, 0);
}

/* How many events a set has now; data of the first one. */
static inline int ready(int set, uint64_t *data)
{
	struct epoll_event events[64];
	int count = epoll_wait(set, events, 64, 0);

	if (data)
		*data = count > 0 ? events[0].data.u64 : 0;
	return count;
}

/* Exactly one event, with this data. */
static inline bool reports(int set, uint64_t wanted)
{
	uint64_t data;
	int count = ready(set, &data);

	if (count == 1 && data == wanted)
		return true;
	NOTE("%d events, the first %llu; wanted one, %llu", count,
	     (unsigned long long)data, (unsigned long long)wanted);
	return false;
}

/* A file that is ready to be read; its other end in `other`. */
static inline int readable(int *other)
{
	int ends[2];

	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	NEED(write(ends[1], "x", 1) == 1);
	*other = ends[1];
	return ends[0];
}

#endif
