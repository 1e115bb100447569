// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=180 modules=fastsocket variants=patched,patched-debug
 *
 * No connection waits for a worker that does not come, and a handshake may
 * change cores.
 */
#include "fastsocket.h"

static void own_and_sleep(int fd, int name, struct shared *shared)
{
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	NEED(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	shared->bound[name] = bound_to();
	__sync_fetch_and_add(&shared->ready, 1);
	for (;;)
		pause();
}

/* Polled once and removed: nginx with accept_mutex, between two turns. */
static void poll_and_leave(int fd, int name, struct shared *shared)
{
	struct epoll_event event = { .events = EPOLLIN };
	int set = epoll_create1(EPOLL_CLOEXEC);

	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	NEED(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
	NEED(epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL) == 0);
	shared->bound[name] = bound_to();
	__sync_fetch_and_add(&shared->ready, 1);
	for (;;)
		pause();
}

TEST(an_owner_that_stopped_accepting_loses_its_connections)
{
	struct shared *shared = share();
	int fd, i;

	begin(1);
	fd = listener();
	spawn(fd);
	worker(fd, 1, 0, shared, own_and_sleep);
	worker(fd, 2, 1, shared, serve_by_epoll);
	NEED_EQ(clones(port_of(fd)), 2);
	for (i = 0; i < 10; i++)
		CHECK_EQ(served_by(AF_INET, port_of(fd), 0), 2);
	/* Only the first had to wait: then the core was passed by. */
	CHECK_EQ(hash_stat(0, LOCAL_LOOKUP), 2);
	CHECK_EQ(hash_stat(0, GLOBAL_LOOKUP), 18);
}

TEST(an_owner_that_no_longer_polls_is_passed_by)
{
	struct shared *shared = share();
	int fd, i;

	begin(1);
	fd = listener();
	spawn(fd);
	worker(fd, 1, 0, shared, poll_and_leave);
	worker(fd, 2, 1, shared, serve_by_epoll);
	NEED_EQ(clones(port_of(fd)), 2);
	for (i = 0; i < 10; i++)
		CHECK_EQ(served_by(AF_INET, port_of(fd), 0), 2);
	CHECK_EQ(hash_stat(0, LOCAL_LOOKUP), 0);
}

/* A stopped process is stopped, not dead. */
TEST(a_stopped_owner_comes_back)
{
	struct shared *shared = share();
	pid_t first;
	int fd, one, i;

	begin(1);
	fd = listener();
	spawn(fd);
	first = worker(fd, 1, 0, shared, serve_by_epoll);
	worker(fd, 2, 1, shared, serve_by_epoll);
	CHECK_EQ(served_by(AF_INET, port_of(fd), 0), 1);
	kill(first, SIGSTOP);
	for (i = 0; i < 5; i++)
		CHECK_EQ(served_by(AF_INET, port_of(fd), 0), 2);
	kill(first, SIGCONT);
	/* It comes for a connection of all, and has its core again. */
	for (i = 0; i < 200; i++) {
		pin(0);
		one = connect_to(AF_INET, port_of(fd));
		NEED(one >= 0);
		if (answer_on(one) == 1)
			break;
	}
	CHECK(i < 200);
}

/* Connections that wait in the queue of all. */
static int waiting(int fd)
{
	struct tcp_info info;
	socklen_t length = sizeof(info);

	NEED(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0);
	return info.tcpi_unacked;
}

/* It comes to accept, and whose queue it empties does not matter. */
TEST(an_owner_that_is_busy_with_connections_of_all_has_its_core)
{
	int fd, i, fds[3];

	begin(1);
	fd = listener();
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	spawn(fd);
	pin(0);
	NEED(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	for (i = 0; i < 2; i++)
		NEED((fds[i] = connect_to(AF_INET, port_of(fd))) >= 0);
	NEED(WAIT_FOR(waiting(fd) == 2, 5));
	CHECK_EQ(hash_stat(0, LOCAL_LOOKUP), 4);
	/* There is more of that kind left. */
	CHECK(accept(fd, NULL, NULL) >= 0);
	CHECK_EQ(waiting(fd), 1);
	NEED((fds[2] = connect_to(AF_INET, port_of(fd))) >= 0);
	CHECK_EQ(hash_stat(0, LOCAL_LOOKUP), 6);
	CHECK_EQ(hash_stat(0, GLOBAL_LOOKUP), 0);
	for (i = 0; i < 2; i++)
		CHECK(accept(fd, NULL, NULL) >= 0);
	for (i = 0; i < 3; i++)
		drop(fds[i]);
}

TEST(a_full_clone_spills)
{
	enum { BACKLOG = 8, MANY = 12 };
	struct shared *shared = share();
	int fd, i, fds[MANY], names[MANY];

	begin(1);
	fd = listener_of(AF_INET, BACKLOG);
	spawn(fd);
	worker(fd, 1, 0, shared, serve_by_accept);
	NEED(WAIT_FOR(clones(port_of(fd)) == 1, 5));
	pin(0);
	/* The first keeps the only worker busy. */
	for (i = 0; i < MANY; i++) {
		fds[i] = connect_to(AF_INET, port_of(fd));
		NEED(fds[i] >= 0);
	}
	/* Its queue is full with one more than half of the backlog. */
	CHECK(hash_stat(0, LOCAL_LOOKUP) >= 2);
	CHECK(hash_stat(0, LOCAL_LOOKUP) <= 2 * (BACKLOG / 2 + 2));
	CHECK(hash_stat(0, GLOBAL_LOOKUP) >= 2 * (MANY - BACKLOG / 2 - 2));
	CHECK_EQ(answers_on(fds, names, MANY), MANY);
	for (i = 0; i < MANY; i++)
		CHECK_EQ(names[i], 1);
}

/*
 * A client that has data coming saves the last ACK of the handshake, and sends
 * it with the data: by then from the other core.
 */
static void split_handshakes(int family)
{
	enum { MANY = 50 };
	struct shared *shared = share();
	union address address;
	socklen_t length;
	int fd, i, one, off = 0, port;

	begin(1);
	fd = listener_of(family, 128);
	port = port_of(fd);
	spawn(fd);
	worker(fd, 10, 0, shared, serve_by_epoll);
	worker(fd, 11, 1, shared, serve_by_epoll);
	length = loopback(&address, family, port);
	for (i = 0; i < MANY; i++) {
		pin(0);
		one = socket(family, SOCK_STREAM, 0);
		NEED(!setsockopt(one, IPPROTO_TCP, TCP_QUICKACK, &off,
				 sizeof(off)));
		NEED(connect(one, &address.any, length) == 0);
		pin(1);
		CHECK_EQ(write(one, "x", 1), 1);
		/* The core of the SYN has it. */
		CHECK_EQ(answer_on(one), 10);
	}
	CHECK_EQ(hash_stat(0, LOCAL_LOOKUP), MANY);
	/* The ACK met the clone of its own core first. */
	CHECK(hash_stat(1, LOCAL_LOOKUP) >= MANY / 2);
	CHECK(WAIT_FOR(shared->served[10] == MANY, 5));
}

TEST(the_last_ack_may_come_to_another_core)
{
	split_handshakes(AF_INET);
}

TEST(the_last_ack_may_come_to_another_core_over_ipv6)
{
	split_handshakes(AF_INET6);
}

/* A counter of /proc/net/netstat. */
static long netstat(const char *name)
{
	static char text[16384];
	char *names = ktap_read("/proc/net/netstat", text, sizeof(text));
	char *values = strchr(text, '\n'), *word, *value, *a, *b;

	NEED(values != NULL);
	*values++ = '\0';
	word = strtok_r(names, " ", &a);
	value = strtok_r(values, " \n", &b);
	for (; word && value; word = strtok_r(NULL, " ", &a),
			      value = strtok_r(NULL, " \n", &b))
		if (!strcmp(word, name))
			return atol(value);
	return -1;
}

/* A cookie that one core sent is good for all. */
TEST(syn_cookies_cross_cores)
{
	enum { MANY = 40 };
	struct shared *shared = share();
	union address address;
	socklen_t length;
	int fd, i, fds[MANY], off = 0;
	long before;

	begin(1);
	NEED(ktap_write("/proc/sys/net/ipv4/tcp_syncookies", "1"));
	before = netstat("SyncookiesRecv");
	NEED(before >= 0);
	fd = listener_of(AF_INET, 8);
	spawn(fd);
	worker(fd, 10, 0, shared, serve_by_epoll);
	worker(fd, 11, 1, shared, serve_by_epoll);
	length = loopback(&address, AF_INET, port_of(fd));
	pin(0);
	for (i = 0; i < MANY; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		NEED(!setsockopt(fds[i], IPPROTO_TCP, TCP_QUICKACK, &off,
				 sizeof(off)));
		NEED(connect(fds[i], &address.any, length) == 0);
	}
	pin(1);
	for (i = 0; i < MANY; i++)
		CHECK_EQ(write(fds[i], "x", 1), 1);
	CHECK_EQ(answers_on(fds, NULL, MANY), MANY);
	CHECK(netstat("SyncookiesRecv") > before);
}

/* Handshakes that began before there was a clone, and end after. */
TEST(a_handshake_may_begin_before_the_clone_and_end_after_it)
{
	enum { MANY = 4 };
	int fd, i, fds[MANY], off = 0;
	union address address;
	socklen_t length;
	bool more;

	for (more = false; ; more = true) {
		begin(1);
		fd = listener();
		NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
		spawn(fd);
		pin(0);
		if (more)
			NEED(accept(fd, NULL, NULL) < 0);
		length = loopback(&address, AF_INET, port_of(fd));
		for (i = 0; i < MANY; i++) {
			fds[i] = socket(AF_INET, SOCK_STREAM, 0);
			NEED(!setsockopt(fds[i], IPPROTO_TCP, TCP_QUICKACK,
					 &off, sizeof(off)));
			NEED(connect(fds[i], &address.any, length) == 0);
		}
		if (more) {
			/* The clone goes, with what it began. */
			NEED(!setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &off,
					 sizeof(off)));
		} else {
			NEED(accept(fd, NULL, NULL) < 0);
		}
		for (i = 0; i < MANY; i++)
			CHECK_EQ(write(fds[i], "x", 1), 1);
		for (i = 0; i < MANY; i++)
			CHECK(WAIT_FOR(accept(fd, NULL, NULL) >= 0, 10));
		for (i = 0; i < MANY; i++)
			drop(fds[i]);
		close(fd);
		if (more)
			break;
	}
}
