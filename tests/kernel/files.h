/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Files that live in no directory: sockets, pipes and anonymous ones. What
 * tests of them share.
 */
#ifndef FILES_H
#define FILES_H

#include "ktap.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

/*
 * A kind of file. make() opens one and returns how many descriptors that took,
 * 0 where the kernel has no such thing. Link is what stands before ":[inode]"
 * in /proc. The files of an anonymous kind share an inode; link is then the
 * whole name, after "anon_inode:" where the kernel is a newer one.
 */
struct kind {
	const char *name;
	int (*make)(int *fds);
	mode_t type;
	const char *link;
	bool anonymous;
};

/* An address that no process may use, hidden from the compiler. */
static void *volatile nowhere __attribute__((unused)) = (void *)8;

static inline int one_or_none(int fd)
{
	return fd >= 0;
}

static inline int make_tcp(int *fds)
{
	return one_or_none(fds[0] = socket(AF_INET, SOCK_STREAM, 0));
}

static inline int make_tcp6(int *fds)
{
	return one_or_none(fds[0] = socket(AF_INET6, SOCK_STREAM, 0));
}

static inline int make_udp(int *fds)
{
	return one_or_none(fds[0] = socket(AF_INET, SOCK_DGRAM, 0));
}

static inline int make_raw(int *fds)
{
	return one_or_none(fds[0] = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static inline int make_unix(int *fds)
{
	return one_or_none(fds[0] = socket(AF_UNIX, SOCK_STREAM, 0));
}

static inline int make_netlink(int *fds)
{
	return one_or_none(fds[0] = socket(AF_NETLINK, SOCK_RAW,
					   NETLINK_ROUTE));
}

static inline int make_packet(int *fds)
{
	return one_or_none(fds[0] = socket(AF_PACKET, SOCK_DGRAM, 0));
}

static inline int make_socketpair(int *fds)
{
	return socketpair(AF_UNIX, SOCK_STREAM, 0, fds) ? 0 : 2;
}

static inline int make_pipe(int *fds)
{
	return pipe(fds) ? 0 : 2;
}

static inline int make_epoll(int *fds)
{
	return one_or_none(fds[0] = epoll_create1(0));
}

static inline int make_eventfd(int *fds)
{
	return one_or_none(fds[0] = eventfd(0, 0));
}

static inline int make_timerfd(int *fds)
{
	return one_or_none(fds[0] = timerfd_create(CLOCK_MONOTONIC, 0));
}

static inline int make_signalfd(int *fds)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	return one_or_none(fds[0] = signalfd(-1, &set, 0));
}

static inline int make_inotify(int *fds)
{
	return one_or_none(fds[0] = inotify_init());
}

static const struct kind kinds[] = {
	{ "tcp", make_tcp, S_IFSOCK, "socket", false },
	{ "tcp6", make_tcp6, S_IFSOCK, "socket", false },
	{ "udp", make_udp, S_IFSOCK, "socket", false },
	{ "raw", make_raw, S_IFSOCK, "socket", false },
	{ "unix", make_unix, S_IFSOCK, "socket", false },
	{ "netlink", make_netlink, S_IFSOCK, "socket", false },
	{ "socketpair", make_socketpair, S_IFSOCK, "socket", false },
	{ "pipe", make_pipe, S_IFIFO, "pipe", false },
	{ "epoll", make_epoll, 0, "[eventpoll]", true },
	{ "eventfd", make_eventfd, 0, "[eventfd]", true },
	{ "timerfd", make_timerfd, 0, "[timerfd]", true },
	{ "signalfd", make_signalfd, 0, "[signalfd]", true },
	/* From here on: closing waits for every CPU. */
	{ "packet", make_packet, S_IFSOCK, "socket", false },
	{ "inotify", make_inotify, 0, "inotify", true },
};

#define KINDS		((int)(sizeof(kinds) / sizeof(kinds[0])))

/* Those to make and close by the thousand. */
#define QUICK_KINDS	(KINDS - 2)

/* Descriptors of a kind, for tests that cannot go on without. */
static inline int make(const struct kind *kind, int *fds)
{
	int count = kind->make(fds);

	if (!CHECK(count > 0)) {
		NOTE("no %s", kind->name);
		_exit(1);
	}
	return count;
}

static inline void close_all(const int *fds, int count)
{
	while (count--)
		CHECK_EQ(close(fds[count]), 0);
}

/* What /proc says a descriptor is: of this process, or of another. */
static inline const char *link_in(pid_t pid, int fd)
{
	static __thread char path[64], target[256];
	ssize_t length;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	else
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	length = readlink(path, target, sizeof(target) - 1);
	target[length < 0 ? 0 : length] = '\0';
	return target;
}

static inline unsigned long long inode_of(int fd)
{
	struct stat seen;

	return fstat(fd, &seen) ? 0 : seen.st_ino;
}

/* Whether /proc names the descriptor KIND:[inode]. */
static inline bool link_is(pid_t pid, int fd, const char *kind,
			   unsigned long long inode)
{
	char wanted[64];

	snprintf(wanted, sizeof(wanted), "%s:[%llu]", kind, inode);
	if (!strcmp(link_in(pid, fd), wanted))
		return true;
	NOTE("descriptor %d is \"%s\", not \"%s\"", fd, link_in(pid, fd),
	     wanted);
	return false;
}

/* The same for an anonymous file. */
static inline bool link_is_anonymous(pid_t pid, int fd, const char *name)
{
	char wanted[64];

	snprintf(wanted, sizeof(wanted), "%s%s",
		 ktap_target_is("el6") ? "" : "anon_inode:", name);
	if (!strcmp(link_in(pid, fd), wanted))
		return true;
	NOTE("descriptor %d is \"%s\", not \"%s\"", fd, link_in(pid, fd),
	     wanted);
	return false;
}

static inline struct sockaddr_in loopback(int port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
}

/* A listener on a port of the kernel's choice, which is returned too. */
static inline int listen_any(int *port)
{
	struct sockaddr_in address = loopback(0);
	socklen_t length = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	NEED(fd >= 0);
	NEED_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	NEED_EQ(listen(fd, 1024), 0);
	NEED_EQ(getsockname(fd, (struct sockaddr *)&address, &length), 0);
	*port = ntohs(address.sin_port);
	return fd;
}

static inline int connect_to(int port)
{
	struct sockaddr_in address = loopback(port);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	NEED(fd >= 0);
	NEED_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* Both ends of a connection over the loopback device. */
static inline void connected(int ends[2])
{
	int port, listener = listen_any(&port);

	ends[0] = connect_to(port);
	ends[1] = accept(listener, NULL, NULL);
	NEED(ends[1] >= 0);
	close(listener);
}

/* Whether what is written at one end arrives at the other. */
static inline bool carries(int from, int to)
{
	char got[6] = "";

	return write(from, "hello", 6) == 6 && read(to, got, 6) == 6 &&
	       !strcmp(got, "hello");
}

/* Send a descriptor over a UNIX socket. */
static inline bool send_fd(int over, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .header = { .cmsg_level = SOL_SOCKET,
				  .cmsg_type = SCM_RIGHTS,
				  .cmsg_len = CMSG_LEN(sizeof(int)) } };
	struct iovec one = { .iov_base = (char[]){ 'x' }, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &one, .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };

	memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
	return sendmsg(over, &message, 0) == 1;
}

/* Receive a descriptor; -1 when none came. */
static inline int receive_fd(int over)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec one = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = { .msg_iov = &one, .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header;
	int fd;

	if (recvmsg(over, &message, 0) != 1)
		return -1;
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS)
		return -1;
	memcpy(&fd, CMSG_DATA(header), sizeof(int));
	return fd;
}

/* The n-th number of a file of /proc/sys, counted from 0. */
static inline long number_in(const char *path, int n)
{
	char text[256], *at = text;
	long value = -1;

	ktap_read(path, text, sizeof(text));
	do {
		value = strtol(at, &at, 10);
	} while (n--);
	return value;
}

static inline long inodes(void)
{
	return number_in("/proc/sys/fs/inode-nr", 0);
}

static inline long dentries(void)
{
	return number_in("/proc/sys/fs/dentry-state", 0);
}

static inline long files(void)
{
	return number_in("/proc/sys/fs/file-nr", 0);
}

/* Forget what nobody uses: the caches of /proc's own files would be counted. */
static inline void drop_caches(void)
{
	ktap_write("/proc/sys/vm/drop_caches", "3");
}

#endif
