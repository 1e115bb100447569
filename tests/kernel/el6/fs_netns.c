// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=150 modules=fastsocket variants=patched,patched-debug
 *
 * Network namespaces made and destroyed under load, with armed listening
 * sockets, clones and connections that wait in them: each serves its own, and
 * nothing is left of one whose last process is gone.
 */
#include "fastsocket.h"
#include "module.h"
#include "slabs.h"

#include <net/if.h>

static const char *const slabs[] = {
	"net_namespace", "TCP", "TCPv6", "request_sock_TCP",
	"request_sock_TCPv6", "tcp_bind_bucket", "sock_inode_cache", "filp",
};

#define SLABS	((int)(sizeof(slabs) / sizeof(slabs[0])))

enum { PORT = 21000, SIDES = 3, EACH = 20, LEFT = 10, SLACK = 2 };

static void new_namespace(void)
{
	struct ifreq up = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	NEED(unshare(CLONE_NEWNET) == 0);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	NEED(fd >= 0 && !ioctl(fd, SIOCSIFFLAGS, &up));
	close(fd);
}

/* The same port in each namespace. */
static int listener_at(int family)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	union address address;
	socklen_t length = loopback(&address, family, PORT);

	NEED(fd >= 0);
	NEED(bind(fd, &address.any, length) == 0);
	NEED(listen(fd, 128) == 0);
	spawn(fd);
	return fd;
}

/*
 * A server and its clients in a namespace; in the end all are there, with
 * connections that nobody took, and wait to be killed.
 */
static void live(int name, int family, struct shared *shared)
{
	struct shared *mine = share();
	int fd, i, cpu;
	pid_t workers[2];

	new_namespace();
	fd = listener_at(family);
	for (cpu = 0; cpu < 2; cpu++)
		workers[cpu] = worker(fd, name, cpu, mine, serve_by_epoll);
	/* Others come and go: a row of the list may be there twice, or not. */
	if (family == AF_INET)
		CHECK(WAIT_FOR(clones(PORT) == 2, 10));
	for (i = 0; i < EACH; i++)
		CHECK_EQ(served_by(family, PORT, i & 1), name);
	/* The tables of counters are the first namespace's alone. */
	CHECK(access(HASH_STAT, F_OK) < 0);
	for (cpu = 0; cpu < 2; cpu++)
		NEED(kill(workers[cpu], SIGSTOP) == 0);
	for (i = 0; i < LEFT; i++) {
		pin(i & 1);
		NEED(connect_to(family, PORT) >= 0);
	}
	__sync_fetch_and_add(&shared->ready, 1);
	for (;;)
		pause();
}

/* Whether nobody is left of a group whose first process is reaped. */
static bool group_gone(pid_t group)
{
	waitpid(group, NULL, WNOHANG);
	return kill(-group, SIGKILL) < 0 && errno == ESRCH;
}

static void one_round(int fd, struct shared *shared)
{
	pid_t sides[SIDES];
	int i;

	shared->ready = 0;
	for (i = 0; i < SIDES; i++) {
		sides[i] = fork();
		if (!sides[i]) {
			NEED(setpgid(0, 0) == 0);
			live(10 + i, i == 1 ? AF_INET6 : AF_INET, shared);
		}
	}
	/* Ours is served all the time, by nobody of theirs. */
	while (shared->ready < SIDES) {
		NEED(served_by(AF_INET, port_of(fd), 0) == 1);
		NEED(kill(sides[0], 0) == 0);
	}
	for (i = 0; i < SIDES; i++)
		NEED(kill(-sides[i], SIGKILL) == 0);
	for (i = 0; i < SIDES; i++)
		NEED(WAIT_FOR(group_gone(sides[i]), 10));
}

TEST_WITHIN(namespaces_come_and_go_under_load, 120)
{
	struct shared *shared = share(), *ours = share();
	int fd, i, cpu, rounds = ktap_rounds(12);
	long before[SLABS];
	pid_t workers[2];

	begin(1);
	fd = listener_at(AF_INET);
	for (cpu = 0; cpu < 2; cpu++)
		workers[cpu] = worker(fd, 1, cpu, ours, serve_by_epoll);
	one_round(fd, shared);
	slabs_now(slabs, before, SLABS);
	for (i = 0; i < rounds; i++)
		one_round(fd, shared);
	CHECK(slabs_back(slabs, before, SLABS, SLACK, 30));
	CHECK_EQ(clones(PORT), 2);
	for (cpu = 0; cpu < 2; cpu++)
		end(workers[cpu]);
	close(fd);
	CHECK(WAIT_FOR(module_unload(), 10));
	CHECK(module_load(""));
}

/* A socket may outlive the processes of its namespace, in another's hands. */
TEST(a_listener_serves_its_namespace_from_another)
{
	int fd, ends[2], one;
	pid_t child;
	char byte;

	begin(1);
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	child = fork();
	NEED(child >= 0);
	if (!child) {
		new_namespace();
		pin(0);
		fd = listener_at(AF_INET);
		NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
		CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
		CHECK_EQ(clones(PORT), 1);
		one = connect_to(AF_INET, PORT);
		NEED(one >= 0);
		sent_fd(ends[0], fd);
		/* The clone goes with this process, the connection does not. */
		NEED(read(ends[0], &byte, 1) == 1);
		close(fd);
		NEED(write(ends[0], "x", 1) == 1);
		NEED(read(one, &byte, 1) == 1);
		CHECK_EQ(byte, 'y');
		_exit(0);
	}
	fd = sent_fd(ends[1], -1);
	NEED(fd >= 0);
	NEED(write(ends[1], "x", 1) == 1);
	NEED(read(ends[1], &byte, 1) == 1);
	pin(0);
	one = accept(fd, NULL, NULL);
	NEED(one >= 0);
	CHECK_EQ(clones(PORT), -1);	/* not in our namespace */
	NEED(write(one, "y", 1) == 1);
	CHECK(ktap_child_fine(child));
	close(one);
	close(fd);
	CHECK(WAIT_FOR(module_unload(), 10));
	CHECK(module_load(""));
}
