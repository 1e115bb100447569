// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=90 modules=fastsocket variants=patched,patched-debug
 *
 * A clone is like its listening socket, also when that changes later.
 */
#include "fastsocket.h"

/* The server's end of a connection that came by the clone. */
static int accepted(int fd, int family)
{
	long before = hash_stat(0, LOCAL_ACCEPT);
	int one;

	NEED(connect_to(family, port_of(fd)) >= 0);
	one = accept(fd, NULL, NULL);
	NEED(one >= 0);
	CHECK_EQ(hash_stat(0, LOCAL_ACCEPT), before + 1);
	return one;
}

static void inherits(int family, int level, int option, int value)
{
	socklen_t length = sizeof(int);
	int fd = with_clone(family, 16), before = -1, after = -1, one;

	/* Before the clone was made, and after. */
	one = accepted(fd, family);
	NEED(!getsockopt(one, level, option, &before, &length));
	NEED(!setsockopt(fd, level, option, &value, sizeof(value)));
	NEED(!getsockopt(fd, level, option, &value, &length));
	CHECK_EQ(listening(family == AF_INET6 ? "/proc/net/tcp6" :
			   "/proc/net/tcp", port_of(fd)), 2);
	one = accepted(fd, family);
	NEED(!getsockopt(one, level, option, &after, &length));
	CHECK_EQ(after, value);
	NOTE("option %d/%d: %d, then %d", level, option, before, after);
	CHECK(before != after);
	close(fd);
}

TEST(later_options_reach_the_clone)
{
	inherits(AF_INET, SOL_SOCKET, SO_KEEPALIVE, 1);
	inherits(AF_INET, SOL_SOCKET, SO_RCVBUF, 20000);
	inherits(AF_INET, SOL_SOCKET, SO_SNDBUF, 20000);
	inherits(AF_INET, SOL_SOCKET, SO_MARK, 77);
	inherits(AF_INET, IPPROTO_IP, IP_TOS, 0x10);
	inherits(AF_INET, IPPROTO_IP, IP_TTL, 33);
	inherits(AF_INET, IPPROTO_TCP, TCP_NODELAY, 1);
	inherits(AF_INET, IPPROTO_TCP, TCP_KEEPIDLE, 123);
}

TEST(later_options_reach_the_clone_over_ipv6)
{
	inherits(AF_INET6, SOL_SOCKET, SO_KEEPALIVE, 1);
	inherits(AF_INET6, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 44);
	inherits(AF_INET6, IPPROTO_TCP, TCP_NODELAY, 1);
}

/* Not accepted before there are data. */
TEST(a_later_defer_accept_reaches_the_clone)
{
	int fd = with_clone(AF_INET, 16), seconds = 5, one;

	NEED(!setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds,
			 sizeof(seconds)));
	one = connect_to(AF_INET, port_of(fd));
	NEED(one >= 0);
	CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	CHECK_EQ(write(one, "x", 1), 1);
	CHECK(accept(fd, NULL, NULL) >= 0);
	CHECK_EQ(hash_stat(0, LOCAL_ACCEPT), 1);
}

/* Half of the backlog goes to the clone, then the global queue takes over. */
TEST(a_later_backlog_reaches_the_clone)
{
	int fd = with_clone(AF_INET, 4), i;

	NEED(listen(fd, 40) == 0);
	for (i = 0; i < 15; i++)
		NEED(connect_to(AF_INET, port_of(fd)) >= 0);
	CHECK_EQ(hash_stat(0, LOCAL_LOOKUP), 30);
	CHECK_EQ(hash_stat(0, GLOBAL_LOOKUP), 0);
}

/* Queued connections outlive the change. */
TEST(setting_an_option_resets_nothing)
{
	int fd = with_clone(AF_INET, 64), i, one = 1, fds[10], got;
	char byte;

	for (i = 0; i < 10; i++) {
		fds[i] = connect_to(AF_INET, port_of(fd));
		NEED(fds[i] >= 0);
	}
	NEED(!setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)));
	for (i = 0; i < 10; i++) {
		got = accept(fd, NULL, NULL);
		CHECK(got >= 0);
		CHECK_EQ(write(got, "y", 1), 1);
	}
	for (i = 0; i < 10; i++)
		CHECK_EQ(read(fds[i], &byte, 1), 1);
	CHECK_EQ(hash_stat(0, GLOBAL_ACCEPT), 10);
}

/* Flags of the descriptor, and of accept4(). */
TEST(flags_are_honoured)
{
	int fd = with_clone(AF_INET, 16), one;

	NEED(connect_to(AF_INET, port_of(fd)) >= 0);
	one = accept4(fd, NULL, NULL, 0);
	CHECK_EQ(fcntl(one, F_GETFL) & O_NONBLOCK, 0);
	CHECK_EQ(fcntl(one, F_GETFD), 0);
	NEED(connect_to(AF_INET, port_of(fd)) >= 0);
	one = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	CHECK_EQ(fcntl(one, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	CHECK_EQ(fcntl(one, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(hash_stat(0, LOCAL_ACCEPT), 2);
}

TEST(a_receive_timeout_ends_accept)
{
	int fd = with_clone(AF_INET, 16);
	struct timeval time = { .tv_usec = 200 * 1000 };
	double began;

	NEED(fcntl(fd, F_SETFL, O_RDWR) == 0);
	NEED(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)));
	began = ktap_now();
	CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	CHECK(ktap_now() - began >= 0.15);
}
