// SPDX-License-Identifier: GPL-2.0-only
/*
 * The socket calls as programs use them, each family once: what must not
 * change whatever is done to the way sockets are made.
 */
#include "files.h"

#include <poll.h>
#include <sched.h>
#include <stddef.h>

TEST(tcp_over_ipv4)
{
	int ends[2];
	char byte;

	connected(ends);
	CHECK(carries(ends[0], ends[1]));
	CHECK(carries(ends[1], ends[0]));
	CHECK_EQ(shutdown(ends[0], SHUT_WR), 0);
	CHECK_EQ(read(ends[1], &byte, 1), 0);
	CHECK(carries(ends[1], ends[0]));
}

TEST(tcp_over_ipv6)
{
	struct sockaddr_in6 address = { .sin6_family = AF_INET6,
					.sin6_addr = IN6ADDR_LOOPBACK_INIT };
	socklen_t length = sizeof(address);
	int listener = socket(AF_INET6, SOCK_STREAM, 0);
	int client = socket(AF_INET6, SOCK_STREAM, 0), server;

	NEED(listener >= 0 && client >= 0);
	NEED_EQ(bind(listener, (struct sockaddr *)&address, length), 0);
	NEED_EQ(listen(listener, 5), 0);
	NEED_EQ(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	NEED_EQ(connect(client, (struct sockaddr *)&address, length), 0);
	server = accept(listener, (struct sockaddr *)&address, &length);
	NEED(server >= 0);
	CHECK_EQ(address.sin6_family, AF_INET6);
	CHECK(carries(client, server));
	CHECK(carries(server, client));
}

TEST(udp)
{
	struct sockaddr_in address = loopback(0);
	socklen_t length = sizeof(address);
	int receiver = socket(AF_INET, SOCK_DGRAM, 0);
	int sender = socket(AF_INET, SOCK_DGRAM, 0);

	NEED_EQ(bind(receiver, (struct sockaddr *)&address, length), 0);
	NEED_EQ(getsockname(receiver, (struct sockaddr *)&address, &length), 0);
	NEED_EQ(connect(sender, (struct sockaddr *)&address, length), 0);
	CHECK(carries(sender, receiver));
}

TEST(flags_of_socket_and_accept)
{
	int port, listener = listen_any(&port), client, server, i;
	int flags[] = { 0, SOCK_NONBLOCK, SOCK_CLOEXEC,
			SOCK_NONBLOCK | SOCK_CLOEXEC };

	for (i = 0; i < 4; i++) {
		int plain = socket(AF_INET, SOCK_STREAM | flags[i], 0);

		CHECK_EQ(!!(fcntl(plain, F_GETFL) & O_NONBLOCK),
			 !!(flags[i] & SOCK_NONBLOCK));
		CHECK_EQ(fcntl(plain, F_GETFD),
			 flags[i] & SOCK_CLOEXEC ? FD_CLOEXEC : 0);
		CHECK_EQ(fcntl(plain, F_GETFL) & O_ACCMODE, O_RDWR);
		close(plain);
		client = connect_to(port);
		server = accept4(listener, NULL, NULL, flags[i]);
		NEED(server >= 0);
		CHECK_EQ(!!(fcntl(server, F_GETFL) & O_NONBLOCK),
			 !!(flags[i] & SOCK_NONBLOCK));
		CHECK_EQ(fcntl(server, F_GETFD),
			 flags[i] & SOCK_CLOEXEC ? FD_CLOEXEC : 0);
		close(server);
		close(client);
	}
	/* A listener that does not block hands out sockets that do. */
	fcntl(listener, F_SETFL, O_NONBLOCK);
	CHECK_EQ(accept(listener, NULL, NULL), -1);
	CHECK_EQ(errno, EAGAIN);
	client = connect_to(port);
	server = accept(listener, NULL, NULL);
	NEED(server >= 0);
	CHECK(!(fcntl(server, F_GETFL) & O_NONBLOCK));
}

TEST(what_fails_fails_as_before)
{
	struct sockaddr_in address = loopback(1);
	int fds[2], fd = socket(AF_INET, SOCK_STREAM, 0);

	CHECK_EQ(socket(AF_INET, 77, 0), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK_EQ(socket(99, SOCK_STREAM, 0), -1);
	CHECK_EQ(errno, EAFNOSUPPORT);
	CHECK_EQ(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), -1);
	CHECK_EQ(errno, EPROTONOSUPPORT);
	CHECK_EQ(socketpair(AF_INET, SOCK_STREAM, 0, fds), -1);
	CHECK_EQ(errno, EOPNOTSUPP);
	CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, nowhere), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(accept(fd, NULL, NULL), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK_EQ(accept(0, NULL, NULL), -1);
	CHECK_EQ(errno, ENOTSOCK);
	CHECK_EQ(accept(-1, NULL, NULL), -1);
	CHECK_EQ(errno, EBADF);
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), -1);
	CHECK_EQ(errno, ECONNREFUSED);
	CHECK_EQ(listen(fd, -1), 0);
}

TEST(accept_with_a_bad_address_loses_nothing)
{
	int port, listener = listen_any(&port), client = connect_to(port);
	socklen_t length = sizeof(struct sockaddr_in);
	long before = files();
	char byte;

	NEED(client >= 0);
	/* The connection is taken and closed again: the client sees its end. */
	CHECK_EQ(accept(listener, nowhere, &length), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(read(client, &byte, 1), 0);
	CHECK(WAIT_FOR(files() <= before, 10));
}

TEST(unix_sockets_with_a_path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX,
				       .sun_path = "socket" };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	int client = socket(AF_UNIX, SOCK_STREAM, 0), server;
	struct stat by_name, by_fd;

	NEED_EQ(bind(listener, (struct sockaddr *)&address, sizeof(address)),
		0);
	NEED_EQ(listen(listener, 5), 0);
	/* The name has an inode of its own, in its directory's file system. */
	NEED_EQ(stat("socket", &by_name), 0);
	NEED_EQ(fstat(listener, &by_fd), 0);
	CHECK(S_ISSOCK(by_name.st_mode));
	CHECK(by_name.st_dev != by_fd.st_dev);
	CHECK_EQ(by_name.st_nlink, 1);
	CHECK(link_is(0, listener, "socket", by_fd.st_ino));
	drop_caches();
	NEED_EQ(connect(client, (struct sockaddr *)&address, sizeof(address)),
		0);
	server = accept(listener, NULL, NULL);
	NEED(server >= 0);
	CHECK(carries(client, server));
	CHECK_EQ(rename("socket", "moved"), 0);
	CHECK_EQ(unlink("moved"), 0);
	CHECK(carries(server, client));
	close(client);
	client = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_EQ(connect(client, (struct sockaddr *)&address, sizeof(address)),
		 -1);
	CHECK_EQ(errno, ENOENT);
}

TEST(unix_sockets_without_a_path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t length = offsetof(struct sockaddr_un, sun_path) + 6;
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	int client = socket(AF_UNIX, SOCK_STREAM, 0), server;

	memcpy(address.sun_path, "\0test", 6);
	NEED_EQ(bind(listener, (struct sockaddr *)&address, length), 0);
	NEED_EQ(listen(listener, 5), 0);
	NEED_EQ(connect(client, (struct sockaddr *)&address, length), 0);
	server = accept(listener, NULL, NULL);
	NEED(server >= 0);
	CHECK(carries(client, server));
	close(listener);
	close(server);
	close(client);
	/* The name is free again. */
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_EQ(bind(listener, (struct sockaddr *)&address, length), 0);
}

TEST(sockets_in_epoll)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 42 }, got;
	int ends[2], set = epoll_create1(0), other;
	char text[6];

	connected(ends);
	NEED_EQ(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event), 0);
	CHECK_EQ(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event), -1);
	CHECK_EQ(errno, EEXIST);
	CHECK_EQ(epoll_wait(set, &got, 1, 0), 0);
	NEED_EQ(write(ends[1], "hello", 6), 6);
	CHECK_EQ(epoll_wait(set, &got, 1, 10000), 1);
	CHECK_EQ(got.data.u64, 42);
	NEED_EQ(read(ends[0], text, 6), 6);

	/* The last close takes it out of the set, a close of a copy does not. */
	other = dup(ends[0]);
	close(ends[0]);
	NEED_EQ(write(ends[1], "hello", 6), 6);
	CHECK_EQ(epoll_wait(set, &got, 1, 10000), 1);
	close(other);
	CHECK_EQ(epoll_wait(set, &got, 1, 0), 0);

	/* A set in a set, closed in either order. */
	other = epoll_create1(0);
	CHECK_EQ(epoll_ctl(set, EPOLL_CTL_ADD, other, &event), 0);
	close(set);
	CHECK_EQ(close(other), 0);
}

TEST(anonymous_files_work)
{
	struct itimerspec soon = { .it_value.tv_nsec = 1000000 };
	struct signalfd_siginfo info;
	struct pollfd watched = { .events = POLLIN };
	int fds[2];
	uint64_t value = 7;
	sigset_t set;

	make_eventfd(fds);
	CHECK_EQ(write(fds[0], &value, 8), 8);
	CHECK_EQ(write(fds[0], &value, 8), 8);
	CHECK_EQ(read(fds[0], &value, 8), 8);
	CHECK_EQ(value, 14);

	make_timerfd(fds);
	NEED_EQ(timerfd_settime(fds[0], 0, &soon, NULL), 0);
	watched.fd = fds[0];
	CHECK_EQ(poll(&watched, 1, 20000), 1);
	CHECK_EQ(read(fds[0], &value, 8), 8);
	CHECK(value >= 1);
	/* Closed while armed. */
	soon.it_value.tv_sec = 1000;
	CHECK_EQ(timerfd_settime(fds[0], 0, &soon, NULL), 0);
	CHECK_EQ(close(fds[0]), 0);

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	make_signalfd(fds);
	kill(getpid(), SIGUSR2);
	CHECK_EQ(read(fds[0], &info, sizeof(info)), sizeof(info));
	CHECK_EQ(info.ssi_signo, SIGUSR2);

	make_inotify(fds);
	CHECK(inotify_add_watch(fds[0], ".", IN_CREATE) >= 0);
	close(open("new", O_CREAT | O_WRONLY, 0600));
	watched.fd = fds[0];
	CHECK_EQ(poll(&watched, 1, 10000), 1);
}

TEST(network_namespaces_come_and_go)
{
	int i, fds[2];
	pid_t child;

	for (i = 0; i < 3; i++) {
		child = fork();
		if (!child) {
			if (unshare(CLONE_NEWNET))
				SKIP("no network namespaces");
			make_tcp(fds);
			CHECK(link_is(0, fds[0], "socket", inode_of(fds[0])));
			make_packet(fds);
			make_netlink(fds);
			_exit(0);
		}
		CHECK(ktap_child_fine(child));
	}
}
