// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: cpus=4 seconds=240 modules=fastsocket variants=patched,patched-debug
 *
 * CPUs that go offline and come back under the load of workers that have clones
 * there: no connection is lost, and the worker of a core serves it again.
 */
#include "fastsocket.h"

enum { CPUS = 4, CLIENTS = 3 };

static void need_cpus(void)
{
	int cpu;

	NEED_EQ(cpus_there(), CPUS);
	for (cpu = 1; cpu < CPUS; cpu++)
		NEED(set_online(cpu, true));
}

/* On a CPU if it is there: a packet comes in where it was sent. */
static void client(int port, int number, struct shared *shared)
{
	cpu_set_t set;
	int i, fd;

	for (i = number; !shared->go; i++) {
		CPU_ZERO(&set);
		CPU_SET(i % CPUS, &set);
		sched_setaffinity(0, sizeof(set), &set);
		fd = connect_to(AF_INET, port);
		if (!CHECK(fd >= 0 && answer_on(fd) > 0))
			_exit(1);
		__sync_fetch_and_add(&shared->served[60], 1);
	}
	_exit(0);
}

static bool tables_can_be_read(void)
{
	static const char *const tables[] = {
		HASH_STAT, MODULE_STAT, "/proc/net/steer_stat",
		"/proc/net/epoll_stat",
	};
	char text[4096], *line;
	unsigned int i;
	int rows;

	for (i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		rows = 0;
		for (line = ktap_read(tables[i], text, sizeof(text));
		     (line = strchr(line, '\n')) && *++line; )
			rows++;
		/* The counters of a CPU that is off are there, too. */
		if (!CHECK_EQ(rows, CPUS))
			return false;
	}
	return true;
}

static void under_load(int mode, int rounds)
{
	struct shared *shared = share();
	pid_t clients[CLIENTS];
	int fd, i, cpu, port;
	long served;

	need_cpus();
	begin(mode);
	fd = listener();
	port = port_of(fd);
	spawn(fd);
	for (cpu = 0; cpu < CPUS; cpu++)
		worker(fd, cpu + 1, mode == 1 ? cpu : -1, shared,
		       serve_by_epoll);
	NEED_EQ(clones(port), CPUS);
	for (i = 0; i < CLIENTS; i++) {
		clients[i] = fork();
		if (!clients[i])
			client(port, i, shared);
	}
	for (i = 0; i < rounds; i++) {
		cpu = 1 + i % (CPUS - 1);
		served = shared->served[60];
		CHECK(WAIT_FOR(shared->served[60] > served + 5, 30));
		NEED(set_online(cpu, false));
		served = shared->served[60];
		CHECK(tables_can_be_read());
		/* All are served, though one core's worker is elsewhere. */
		CHECK(WAIT_FOR(shared->served[60] > served + 5, 30));
		NEED(set_online(cpu, true));
	}
	shared->go = 1;
	for (i = 0; i < CLIENTS; i++)
		CHECK(ktap_child_fine(clients[i]));
	NOTE("%ld connections, %d times a CPU went", shared->served[60],
	     rounds);
	/* Each has its core again, though no longer bound to it. */
	CHECK_EQ(clones(port), CPUS);
	for (cpu = 0; cpu < CPUS; cpu++) {
		int name = 0, tries;

		for (tries = 0; tries < 20; tries++) {
			name = served_by(AF_INET, port, cpu);
			if (mode == 1 ? name == cpu + 1 :
			    hash_stat(cpu, LOCAL_LOOKUP) > 0)
				break;
		}
		CHECK(name > 0);
		CHECK(tries < 20);
	}
}

TEST_WITHIN(cpus_go_under_load_of_bound_workers, 90)
{
	under_load(1, ktap_rounds(9));
}

TEST_WITHIN(cpus_go_under_load_of_workers_that_we_bind, 90)
{
	under_load(2, ktap_rounds(9));
}

/* A core that is off is nobody's choice, and one that is back is. */
TEST(a_core_that_is_off_gets_no_worker)
{
	struct shared *shared = share();
	int fd, i, taken = 0;

	need_cpus();
	begin(2);
	fd = listener();
	spawn(fd);
	NEED(set_online(2, false));
	NEED(set_online(3, false));
	CHECK_EQ(try_spawn(fd, 3), EINVAL);
	for (i = 0; i < 3; i++) {
		worker(fd, i + 1, -1, shared, serve_by_epoll);
		CHECK(shared->bound[i + 1] < 2);
		taken += shared->bound[i + 1] >= 0;
	}
	CHECK_EQ(taken, 2);
	CHECK_EQ(clones(port_of(fd)), 2);
	NEED(set_online(2, true));
	NEED(set_online(3, true));
	worker(fd, 4, -1, shared, serve_by_epoll);
	CHECK(shared->bound[4] >= 2);
	for (i = 0; i < CPUS; i++)
		CHECK(served_by(AF_INET, port_of(fd), i) > 0);
}
