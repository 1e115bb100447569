// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=240 modules=fastsocket variants=patched,patched-debug
 *
 * Who gets a clone of a listening socket, and who serves which connections.
 */
#include "fastsocket.h"

/* Nobody owns a core's table but who accepts. */
TEST(listen_and_spawn_make_no_clone)
{
	int fd, port;

	begin(2);
	fd = listener();
	port = port_of(fd);
	spawn(fd);
	spawn(fd);
	NEED(listen(fd, 64) == 0);
	CHECK_EQ(clones(port), 0);
	CHECK_EQ(bound_to(), -1);
	CHECK_EQ(stat_of(MODULE_STAT, ALL_CPUS, SPAWN_CALLS), 2);
	CHECK_EQ(stat_of(MODULE_STAT, ALL_CPUS, SPAWNED), 0);
}

TEST(without_spawn_nothing_changes)
{
	struct shared *shared = share();
	int fd, cpu;

	begin(2);
	fd = listener();
	worker(fd, 1, -1, shared, serve_by_epoll);
	for (cpu = 0; cpu < 2; cpu++)
		CHECK_EQ(served_by(AF_INET, port_of(fd), cpu), 1);
	CHECK_EQ(clones(port_of(fd)), 0);
	CHECK_EQ(shared->bound[1], -1);
	CHECK_EQ(hash_stat(ALL_CPUS, COMMON_ACCEPT), 2);
	CHECK_EQ(hash_stat(ALL_CPUS, LOCAL_LOOKUP), 0);
	CHECK(hash_stat(ALL_CPUS, GLOBAL_LOOKUP) >= 2);
}

/* A worker serves what comes in on its core, and only that. */
static void own_core(int family, void (*serve)(int, int, struct shared *))
{
	enum { EACH = 20 };
	struct shared *shared = share();
	int fd, i, cpu, port;

	begin(1);
	fd = listener_of(family, 128);
	port = port_of(fd);
	spawn(fd);
	worker(fd, 10, 0, shared, serve);
	worker(fd, 11, 1, shared, serve);
	/* A worker that blocks is counted before it is in accept(). */
	NEED(WAIT_FOR(stat_of(MODULE_STAT, ALL_CPUS, SPAWNED) == 2, 5));
	for (i = 0; i < EACH; i++)
		for (cpu = 0; cpu < 2; cpu++)
			CHECK_EQ(served_by(family, port, cpu), 10 + cpu);
	for (cpu = 0; cpu < 2; cpu++) {
		CHECK_EQ(hash_stat(cpu, LOCAL_LOOKUP), 2 * EACH);
		CHECK_EQ(hash_stat(cpu, LOCAL_ACCEPT), EACH);
	}
	CHECK_EQ(hash_stat(ALL_CPUS, GLOBAL_LOOKUP), 0);
	CHECK_EQ(hash_stat(ALL_CPUS, REMOTE_ACCEPT), 0);
	CHECK_EQ(hash_stat(ALL_CPUS, GLOBAL_ACCEPT), 0);
}

TEST(a_core_s_connections_are_its_worker_s)
{
	own_core(AF_INET, serve_by_epoll);
}

TEST(the_same_in_blocking_accept)
{
	own_core(AF_INET, serve_by_accept);
}

TEST(the_same_over_ipv6)
{
	own_core(AF_INET6, serve_by_epoll);
}

TEST(mode_2_binds_each_worker_to_a_core_of_its_own)
{
	struct shared *shared = share();
	int fd, i, cpu;

	begin(2);
	fd = listener();
	spawn(fd);
	for (i = 0; i < 3; i++)
		worker(fd, i, -1, shared, serve_by_epoll);
	CHECK(shared->bound[0] >= 0);
	CHECK(shared->bound[1] >= 0);
	CHECK(shared->bound[0] != shared->bound[1]);
	CHECK_EQ(clones(port_of(fd)), 2);
	/* More workers than cores: not bound, and counted. */
	CHECK_EQ(shared->bound[2], -1);
	CHECK(stat_of(MODULE_STAT, ALL_CPUS, SURPLUS_SEEN) >= 1);
	CHECK_EQ(stat_of(MODULE_STAT, ALL_CPUS, BOUND), 2);
	for (cpu = 0; cpu < 2; cpu++)
		CHECK_EQ(shared->bound[served_by(AF_INET, port_of(fd), cpu)],
			 cpu);
}

TEST(mode_1_leaves_who_is_not_bound_alone)
{
	struct shared *shared = share();
	int fd;

	begin(1);
	fd = listener();
	spawn(fd);
	worker(fd, 1, -1, shared, serve_by_epoll);
	CHECK_EQ(shared->bound[1], -1);
	CHECK_EQ(clones(port_of(fd)), 0);
	CHECK_EQ(served_by(AF_INET, port_of(fd), 0), 1);
	CHECK_EQ(hash_stat(ALL_CPUS, GLOBAL_ACCEPT), 1);
}

TEST(mode_0_is_off)
{
	struct shared *shared = share();
	int fd;

	begin(0);
	fd = listener();
	spawn(fd);
	worker(fd, 1, 0, shared, serve_by_epoll);
	CHECK_EQ(clones(port_of(fd)), 0);
	CHECK_EQ(served_by(AF_INET, port_of(fd), 0), 1);
	CHECK_EQ(hash_stat(ALL_CPUS, COMMON_ACCEPT), 1);
}

/* What is in the global queue is older. */
TEST(accept_takes_from_the_global_queue_first)
{
	int fd, port, first, second, one;
	union address from, peer;
	socklen_t length = sizeof(from);

	begin(1);
	fd = listener();
	port = port_of(fd);
	pin(0);
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	spawn(fd);
	CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	NEED_EQ(clones(port), 1);
	first = connect_to(AF_INET, port);	/* into the clone */
	pin(1);
	second = connect_to(AF_INET, port);	/* no clone there */
	pin(0);
	NEED(first >= 0 && second >= 0);
	one = accept(fd, &peer.any, &length);
	NEED(one >= 0);
	NEED(getsockname(second, &from.any, &length) == 0);
	CHECK_EQ(peer.in.sin_port, from.in.sin_port);
	CHECK_EQ(hash_stat(ALL_CPUS, GLOBAL_ACCEPT), 1);
	one = accept(fd, &peer.any, &length);
	NEED(one >= 0);
	NEED(getsockname(first, &from.any, &length) == 0);
	CHECK_EQ(peer.in.sin_port, from.in.sin_port);
	CHECK_EQ(hash_stat(0, LOCAL_ACCEPT), 1);
}

/* Two of one core share its clone, and both serve. */
TEST(two_workers_bound_to_one_core_both_serve)
{
	struct shared *shared = share();
	int fd, i, fds[2];

	begin(1);
	fd = listener();
	spawn(fd);
	worker(fd, 1, 0, shared, serve_by_accept);
	worker(fd, 2, 0, shared, serve_by_accept);
	NEED(WAIT_FOR(stat_of(MODULE_STAT, ALL_CPUS, SPAWNED) == 2, 5));
	CHECK_EQ(clones(port_of(fd)), 1);
	pin(0);
	/* A worker is busy until its client closes. */
	for (i = 0; i < 20; i++) {
		fds[0] = connect_to(AF_INET, port_of(fd));
		fds[1] = connect_to(AF_INET, port_of(fd));
		NEED(fds[0] >= 0 && fds[1] >= 0);
		CHECK_EQ(answers_on(fds, NULL, 2), 2);
	}
	CHECK(WAIT_FOR(shared->served[1] + shared->served[2] == 40, 5));
	CHECK(shared->served[1] > 0);
	CHECK(shared->served[2] > 0);
}

TEST_WITHIN(a_core_comes_back_after_every_restart, 120)
{
	struct shared *shared = share();
	int fd, i, rounds = ktap_rounds(1000);
	pid_t child;

	begin(2);
	fd = listener();
	spawn(fd);
	for (i = 0; i < rounds; i++) {
		child = worker(fd, i & 1, -1, shared, serve_by_epoll);
		if (!CHECK(shared->bound[i & 1] >= 0))
			break;
		end(child);
	}
	CHECK_EQ(clones(port_of(fd)), 0);
	CHECK_EQ(stat_of(MODULE_STAT, ALL_CPUS, SPAWNED), rounds);
	worker(fd, 1, -1, shared, serve_by_epoll);
	CHECK(shared->bound[1] >= 0);
}

/* Whether a process sleeps, and how often it has gone to. */
static bool asleep(pid_t pid, long *count)
{
	static const char word[] = "\nvoluntary_ctxt_switches:";
	char path[64], text[4096], *line;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	ktap_read(path, text, sizeof(text));
	if (!strstr(text, "\nState:\tS"))
		return false;
	line = strstr(text, word);
	NEED(line);
	*count = atol(line + strlen(word));
	return true;
}

/* How often a process has gone to sleep, when it does. */
static long sleeps(pid_t pid)
{
	long count;

	NEED(WAIT_FOR(asleep(pid, &count), 5));
	return count;
}

static bool is_bound(pid_t pid)
{
	cpu_set_t set;

	NEED(sched_getaffinity(pid, sizeof(set), &set) == 0);
	return CPU_COUNT(&set) == 1;
}

/*
 * As after a reload: the workers began to wait when all cores had owners, and
 * one gets the clone of a core that became free when it accepts.
 */
TEST(a_clone_that_came_late_wakes_its_owner_only)
{
	struct shared *shared = share();
	pid_t first, late[2];
	int fd, i, core, owner, rounds = 40;
	long before, woken = 0;

	begin(2);
	fd = listener();
	spawn(fd);
	first = worker(fd, 0, -1, shared, serve_by_epoll);
	for (core = 1; core < cpus_there(); core++)
		worker(fd, 1, -1, shared, serve_by_epoll);
	core = shared->bound[0];
	late[0] = worker(fd, 2, -1, shared, serve_by_epoll);
	late[1] = worker(fd, 3, -1, shared, serve_by_epoll);
	CHECK_EQ(shared->bound[2], -1);
	CHECK_EQ(shared->bound[3], -1);
	end(first);
	for (i = 0; i < 100 && !is_bound(late[0]) && !is_bound(late[1]); i++)
		CHECK(served_by(AF_INET, port_of(fd), core) > 0);
	owner = is_bound(late[1]);
	NEED(is_bound(late[owner]));
	NEED(!is_bound(late[!owner]));

	CHECK_EQ(served_by(AF_INET, port_of(fd), core), 2 + owner);
	before = sleeps(late[!owner]);
	for (i = 0; i < rounds; i++) {
		CHECK_EQ(served_by(AF_INET, port_of(fd), core), 2 + owner);
		woken = sleeps(late[!owner]) - before;
	}
	NOTE("the other one woke %ld times for %d connections", woken, rounds);
	CHECK(woken < rounds / 4);
}

TEST(a_clone_is_shown_with_the_listener_s_inode)
{
	static char text[65536];
	struct stat file;
	char inode[32], *line;
	int fd, found = 0;

	begin(1);
	fd = listener();
	pin(1);
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	spawn(fd);
	CHECK(accept(fd, NULL, NULL) < 0);
	CHECK_EQ(clones(port_of(fd)), 1);
	NEED(fstat(fd, &file) == 0);
	snprintf(inode, sizeof(inode), " %lu ", (unsigned long)file.st_ino);
	for (line = ktap_read("/proc/net/tcp", text, sizeof(text));
	     (line = strstr(line, inode)); line++)
		found++;
	CHECK_EQ(found, 2);
}

TEST(reuseport_stays_as_it_is)
{
#ifndef SO_REUSEPORT
#define SO_REUSEPORT 15
#endif
	int fd, one = 1;

	begin(1);
	pin(0);
	fd = listener();
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	spawn(fd);
	CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	CHECK_EQ(clones(port_of(fd)), 1);
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) < 0)
		SKIP("no SO_REUSEPORT");
	CHECK_EQ(clones(port_of(fd)), 0);
	CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	CHECK_EQ(clones(port_of(fd)), 0);
}

/* A socket of another namespace's port is another socket. */
TEST(namespaces_do_not_meet)
{
	struct shared *shared = share();
	int fd = listener(), port = port_of(fd), status;
	pid_t child;

	begin(1);
	spawn(fd);
	worker(fd, 1, 0, shared, serve_by_epoll);
	child = fork();
	if (!child) {
		NEED(unshare(CLONE_NEWNET) == 0);
		pin(0);
		_exit(clones(port) == -1 ? 7 : 1);
	}
	NEED(waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	CHECK_EQ(served_by(AF_INET, port, 0), 1);
}
