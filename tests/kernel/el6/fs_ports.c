// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=120 modules=fastsocket variants=patched,patched-debug
 *
 * Connections that came through a clone are owners of its port like others,
 * whatever becomes of the clone and of them.
 */
#include "fastsocket.h"

/* 0 or the error of bind() */
static int try_bind(int port, int reuse)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), error;
	union address address;
	socklen_t length = loopback(&address, AF_INET, port);

	NEED(fd >= 0);
	NEED(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse)));
	error = bind(fd, &address.any, length) ? errno : 0;
	close(fd);
	return error;
}

/* A connection through the clone of a listener: both ends. */
static void open_pair(int fd, int *client, int *server)
{
	long before = hash_stat(0, LOCAL_ACCEPT);

	*client = connect_to(AF_INET, port_of(fd));
	NEED(*client >= 0);
	*server = accept(fd, NULL, NULL);
	NEED(*server >= 0);
	NEED_EQ(hash_stat(0, LOCAL_ACCEPT), before + 1);
}

/* The port is not free, but for who says that he knows. */
static void check_taken(int port)
{
	CHECK_EQ(try_bind(port, 0), EADDRINUSE);
	CHECK_EQ(try_bind(port, 1), 0);
}

TEST(a_listener_excludes_all)
{
	int fd = with_clone(AF_INET, 16), client, server;

	open_pair(fd, &client, &server);
	CHECK_EQ(try_bind(port_of(fd), 0), EADDRINUSE);
	CHECK_EQ(try_bind(port_of(fd), 1), EADDRINUSE);
}

TEST(connections_keep_the_port_of_a_closed_listener)
{
	int fd = with_clone(AF_INET, 16), port = port_of(fd), client, server;
	char byte;

	open_pair(fd, &client, &server);
	close(fd);
	check_taken(port);
	drop(client);
	CHECK(read(server, &byte, 1) < 0);
	close(server);
	CHECK_EQ(try_bind(port, 0), 0);
}

/* More than are moved at a time. */
TEST(many_connections_keep_it)
{
	int fd = with_clone(AF_INET, 16), port = port_of(fd), i;
	int clients[200], servers[200];

	for (i = 0; i < 200; i++)
		open_pair(fd, &clients[i], &servers[i]);
	close(fd);
	check_taken(port);
	for (i = 0; i < 200; i++) {
		CHECK_EQ(try_bind(port, 0), EADDRINUSE);
		drop(clients[i]);
		drop(servers[i]);
	}
	CHECK(WAIT_FOR(try_bind(port, 0) == 0, 10));
}

static void close_server_first(int client, int server)
{
	char byte;

	close(server);
	NEED_EQ(read(client, &byte, 1), 0);
	close(client);
}

TEST(time_wait_keeps_it_when_it_came_before_the_close)
{
	int fd = with_clone(AF_INET, 16), port = port_of(fd), client, server;

	open_pair(fd, &client, &server);
	close_server_first(client, server);
	close(fd);
	check_taken(port);
}

TEST(time_wait_keeps_it_when_it_came_after_the_close)
{
	int fd = with_clone(AF_INET, 16), port = port_of(fd), client, server;

	open_pair(fd, &client, &server);
	close(fd);
	close_server_first(client, server);
	check_taken(port);
}

/* From one port to another, so that TIME-WAIT is in the way, and goes. */
static void connect_again(int from, int port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, error;
	union address address;
	socklen_t length = loopback(&address, AF_INET, from);
	char byte;

	NEED(fd >= 0);
	NEED(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	NEED(bind(fd, &address.any, length) == 0);
	length = loopback(&address, AF_INET, port);
	/* The last ACK of the connection before may still be on its way. */
	NEED(WAIT_FOR(!(error = connect(fd, &address.any, length) ? errno : 0) ||
		      error != EADDRNOTAVAIL, 10));
	NEED_EQ(error, 0);
	NEED_EQ(read(fd, &byte, 1), 0);
	close(fd);
}

#define CLIENTS	4
#define TIMES	250
#define A_CLONE	10	/* connections for each */

/*
 * Connections come, become TIME-WAIT and go on two CPUs, while the clone is
 * made anew again and again: what it has moves meanwhile. While a clone is out
 * of date at most one connection of each client passes it by, so that some of
 * those of CPU 0 go through it on the slowest machine.
 */
TEST_WITHIN(owners_move_under_load, 60)
{
	int fd = with_clone(AF_INET, 64), port = port_of(fd), i, one, left;
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	int words[2], bytes = 20000;
	pid_t clients[CLIENTS], renewer;
	char word = 0;

	NEED(pipe(words) == 0);
	renewer = fork();
	if (!renewer) {
		pin(1);
		while (read(words[0], &word, 1) == 1) {
			bytes ^= 1024;
			NEED(!setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes,
					 sizeof(bytes)));
		}
	}
	for (i = 0; i < CLIENTS; i++) {
		clients[i] = fork();
		if (!clients[i]) {
			pin(i % 2);
			for (left = TIMES; left; left--)
				connect_again(20000 + i, port);
			_exit(0);
		}
	}
	for (left = CLIENTS * TIMES; left; left--) {
		do {
			NEED(poll(&readable, 1, 1000 * ktap_scaled(10)) == 1);
			one = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		} while (one < 0);
		close(one);
		if (left % A_CLONE == 0)
			NEED(write(words[1], &word, 1) == 1);
	}
	for (i = 0; i < CLIENTS; i++)
		CHECK(ktap_child_fine(clients[i]));
	end(renewer);
	NOTE("%ld of %d through the clone", hash_stat(ALL_CPUS, LOCAL_ACCEPT),
	     CLIENTS * TIMES);
	CHECK(hash_stat(ALL_CPUS, LOCAL_ACCEPT) > 0);
	close(fd);
	check_taken(port);
}
