// SPDX-License-Identifier: GPL-2.0-only
/*
 * A stand-in for /dev/fastsocket, preloaded after the library under test: what that does to the
 * device it does through the C library's open() and ioctl(), and these come first. The descriptor
 * is a real character device, /dev/full; each call becomes a line in the file $DEVICE_LOG:
 *
 *	PID TID open
 *	PID TID spawn FD CPU LISTENING
 *	PID TID ask		whether a socket listens, which costs a system call
 *
 * DEVICE_VERSION is what VERSION returns, DEVICE_ERRNO the error of open(), SPAWN_ERRNO that of
 * SPAWN_LISTEN. With DEVICE_PINS=1 who accepts or polls after that is pinned to one CPU: so does the
 * module in mode 2, not in SPAWN_LISTEN itself.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fastsocket_abi.h"

static int number(const char *name, int otherwise)
{
	const char *value = getenv(name);

	return value ? atoi(value) : otherwise;
}

static void record(const char *text)
{
	char line[128];
	int length = snprintf(line, sizeof(line), "%d %ld %s\n", getpid(), syscall(SYS_gettid), text);
	int fd = syscall(SYS_open, getenv("DEVICE_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0644);

	if (fd < 0 || write(fd, line, length) != length)
		abort();
	syscall(SYS_close, fd);
}

int open(const char *path, int flags, ...)
{
	int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	va_list list;
	mode_t mode;

	va_start(list, flags);
	mode = va_arg(list, mode_t);
	va_end(list);
	if (strcmp(path, FSOCKET_DEVICE))
		return real(path, flags, mode);
	errno = number("DEVICE_ERRNO", 0);
	if (errno)
		return -1;
	record("open");
	return real("/dev/full", flags);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
	if (level == SOL_SOCKET && name == SO_ACCEPTCONN)
		record("ask");
	return syscall(SYS_getsockopt, fd, level, name, value, length);
}

static int is_ours(int fd)
{
	struct stat now;

	return !fstat(fd, &now) && S_ISCHR(now.st_mode) && now.st_rdev == makedev(1, 7);
}

/* The thread has spawned and not accepted since. */
static __thread int armed;

/* To CPU 0 first, then 1, and so on: two listeners of a task, two cores. */
static void attend(void)
{
	static int attended;
	cpu_set_t set;

	if (!armed)
		return;
	armed = 0;
	CPU_ZERO(&set);
	CPU_SET(attended++ % 2, &set);
	syscall(SYS_sched_setaffinity, 0, sizeof(set), &set);
}

int accept(int fd, struct sockaddr *address, socklen_t *length)
{
	int (*real)(int, struct sockaddr *, socklen_t *) =
		(int (*)(int, struct sockaddr *, socklen_t *))dlsym(RTLD_NEXT, "accept");

	attend();
	return real(fd, address, length);
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	int (*real)(int, struct sockaddr *, socklen_t *, int) =
		(int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");

	attend();
	return real(fd, address, length, flags);
}

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	int (*real)(int, int, int, struct epoll_event *) =
		(int (*)(int, int, int, struct epoll_event *))dlsym(RTLD_NEXT, "epoll_ctl");

	if (op == EPOLL_CTL_ADD)
		attend();
	return real(epfd, op, fd, event);
}

static int spawn(const struct fsocket_ioctl_arg *arg)
{
	int listening = 0;
	socklen_t length = sizeof(listening);
	char text[64];

	syscall(SYS_getsockopt, arg->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length);
	snprintf(text, sizeof(text), "spawn %d %d %d", (int)arg->fd, arg->op.spawn.cpu, listening);
	record(text);
	errno = listening ? number("SPAWN_ERRNO", 0) : EINVAL;
	if (errno)
		return -1;
	armed = number("DEVICE_PINS", 0);
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	int (*real)(int, unsigned long, ...) = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
	va_list list;
	void *arg;

	va_start(list, request);
	arg = va_arg(list, void *);
	va_end(list);
	if (!is_ours(fd))
		return real(fd, request, arg);
	switch (request) {
	case FSOCKET_IOC_VERSION:
		return number("DEVICE_VERSION", FSOCKET_ABI_VERSION);
	case FSOCKET_IOC_SPAWN_LISTEN:
		return spawn(arg);
	}
	record("unexpected");
	errno = EINVAL;
	return -1;
}
