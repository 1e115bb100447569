// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=180 modules=fastsocket variants=patched,patched-debug
 *
 * The end of owners, of descriptors and of listening sockets: no connection is
 * reset that the stock kernel would serve.
 */
#include "fastsocket.h"

enum { QUEUED = 20 };

/* A bound owner of the clone of CPU 0 that never accepts what comes. */
static void own_and_sleep(int fd, int name, struct shared *shared)
{
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	while (serve_one(fd, name))
		;
	NEED_EQ(errno, EAGAIN);
	/* Others, who have the same open file, may want to block. */
	NEED(fcntl(fd, F_SETFL, O_RDWR) == 0);
	shared->bound[name] = bound_to();
	__sync_fetch_and_add(&shared->ready, 1);
	for (;;)
		pause();
}

static void connect_many(int *fds, int port)
{
	int i;

	for (i = 0; i < QUEUED; i++) {
		fds[i] = connect_to(AF_INET, port);
		NEED(fds[i] >= 0);
	}
}

static void all_served(int *fds)
{
	CHECK_EQ(answers_on(fds, NULL, QUEUED), QUEUED);
}

TEST(a_killed_owner_s_connections_are_served_by_others)
{
	struct shared *shared = share();
	int fd, fds[QUEUED];
	pid_t owner;

	begin(1);
	fd = listener();
	spawn(fd);
	owner = worker(fd, 1, 0, shared, own_and_sleep);
	NEED_EQ(clones(port_of(fd)), 1);
	pin(0);
	connect_many(fds, port_of(fd));
	CHECK_EQ(hash_stat(0, LOCAL_LOOKUP), 2 * QUEUED);
	end(owner);
	CHECK_EQ(clones(port_of(fd)), 0);
	worker(fd, 2, 1, shared, serve_by_epoll);
	all_served(fds);
	CHECK(WAIT_FOR(shared->served[2] == QUEUED, 5));
	CHECK_EQ(hash_stat(ALL_CPUS, GLOBAL_ACCEPT), QUEUED);
}

/* The same while another worker waits, whom somebody has to wake. */
TEST(who_waits_is_woken_for_a_dead_owner_s_connections)
{
	struct shared *shared = share();
	int fd, fds[QUEUED];
	pid_t owner;

	begin(1);
	fd = listener();
	spawn(fd);
	owner = worker(fd, 1, 0, shared, own_and_sleep);
	worker(fd, 2, 1, shared, serve_by_accept);
	pin(0);
	connect_many(fds, port_of(fd));
	end(owner);
	all_served(fds);
}

TEST(the_last_descriptor_of_a_process_gives_the_clone_back)
{
	int fd, port, copy, other;

	begin(1);
	pin(0);
	fd = listener();
	port = port_of(fd);
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	spawn(fd);
	copy = dup(fd);
	CHECK(accept(fd, NULL, NULL) < 0);
	CHECK_EQ(clones(port), 1);
	close(fd);
	CHECK_EQ(clones(port), 1);
	other = connect_to(AF_INET, port);
	CHECK(accept(copy, NULL, NULL) >= 0);
	CHECK_EQ(hash_stat(0, LOCAL_ACCEPT), 1);
	close(other);
	close(copy);
	CHECK_EQ(clones(port), -1);
}

/* A child has a table of its own: its end is not its parent's. */
TEST(a_forked_child_that_ends_takes_nothing_away)
{
	int fd, status;
	pid_t child;

	begin(1);
	pin(0);
	fd = listener();
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	spawn(fd);
	CHECK(accept(fd, NULL, NULL) < 0);
	child = fork();
	if (!child) {
		close(fd);
		_exit(0);
	}
	NEED(waitpid(child, &status, 0) == child);
	CHECK_EQ(clones(port_of(fd)), 1);
	child = vfork();
	if (!child)
		_exit(0);
	NEED(waitpid(child, &status, 0) == child);
	CHECK_EQ(clones(port_of(fd)), 1);
}

/* This program, executed by a test: it does nothing, but does not end either. */
__attribute__((constructor)) static void wait_if_executed(void)
{
	while (getenv("DEATH_EXECUTED"))
		pause();
}

TEST(exec_gives_back_what_it_closes)
{
	struct shared *shared = share();
	char *words[] = { "again", NULL };
	char *environment[] = { "DEATH_EXECUTED=1", NULL };
	int fd, status;
	pid_t child;

	begin(1);
	fd = listener();	/* closed on exec */
	spawn(fd);
	child = fork();
	if (!child) {
		pin(0);
		NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
		NEED(accept(fd, NULL, NULL) < 0);
		shared->ready = clones(port_of(fd));
		execv("/nowhere", words);
		execve("/proc/self/exe", words, environment);
		_exit(9);
	}
	NEED(WAIT_FOR(shared->ready == 1, 5));
	CHECK(WAIT_FOR(clones(port_of(fd)) == 0, 10));
	kill(child, SIGKILL);
	NEED(waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status));
}

/* A message in flight keeps the file, not the clone. */
TEST(a_descriptor_in_flight_owns_nothing)
{
	int fd, port, ends[2], one;

	begin(1);
	pin(0);
	fd = listener();
	port = port_of(fd);
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	spawn(fd);
	CHECK(accept(fd, NULL, NULL) < 0);
	CHECK_EQ(clones(port), 1);
	NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	one = connect_to(AF_INET, port);
	NEED(one >= 0);
	sent_fd(ends[0], fd);
	close(fd);
	CHECK_EQ(clones(port), 0);
	fd = sent_fd(ends[1], -1);
	CHECK(accept(fd, NULL, NULL) >= 0);
	CHECK_EQ(hash_stat(ALL_CPUS, GLOBAL_ACCEPT), 1);
	CHECK_EQ(clones(port), 1);
}

static void *close_later(void *fd)
{
	usleep(100 * 1000);
	close(*(int *)fd);
	return NULL;
}

static void *accept_blocking(void *fd)
{
	return (void *)(long)accept(*(int *)fd, NULL, NULL);
}

/* As on stock: whoever is in accept() keeps the file and stays there. */
TEST(close_in_another_thread_during_accept)
{
	pthread_t acceptor, closer;
	void *got;
	int fd, port, one, number;

	begin(1);
	pin(0);
	fd = listener();
	number = fd;
	port = port_of(fd);
	spawn(fd);
	NEED(!pthread_create(&acceptor, NULL, accept_blocking, &number));
	NEED(WAIT_FOR(clones(port) == 1, 5));
	NEED(!pthread_create(&closer, NULL, close_later, &fd));
	NEED(!pthread_join(closer, NULL));
	CHECK(WAIT_FOR(clones(port) == 0, 5));
	one = connect_to(AF_INET, port);
	CHECK(one >= 0);
	NEED(!pthread_join(acceptor, &got));
	CHECK((long)got >= 0);
	/* That was the last reference. */
	CHECK_EQ(clones(port), -1);
}

TEST(shutdown_ends_all_clones_and_listen_begins_again)
{
	int fd, port, one;

	begin(1);
	pin(0);
	fd = listener();
	port = port_of(fd);
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	spawn(fd);
	CHECK(accept(fd, NULL, NULL) < 0);
	CHECK_EQ(clones(port), 1);
	NEED(shutdown(fd, SHUT_RDWR) == 0);
	CHECK_EQ(clones(port), -1);
	CHECK(accept(fd, NULL, NULL) < 0 && errno == EINVAL);
	NEED(listen(fd, 16) == 0);
	CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	CHECK_EQ(clones(port_of(fd)), 1);
	one = connect_to(AF_INET, port_of(fd));
	CHECK(one >= 0);
	CHECK(accept(fd, NULL, NULL) >= 0);
}

/* A thread that sleeps in accept() comes back when the socket is shut down. */
TEST(shutdown_wakes_who_accepts)
{
	pthread_t acceptor;
	void *got;
	int fd;

	begin(1);
	pin(0);
	fd = listener();
	spawn(fd);
	NEED(!pthread_create(&acceptor, NULL, accept_blocking, &fd));
	NEED(WAIT_FOR(clones(port_of(fd)) == 1, 5));
	NEED(shutdown(fd, SHUT_RDWR) == 0);
	NEED(!pthread_join(acceptor, &got));
	CHECK_EQ((long)got, -1);
}

/* Under load, with workers that die and come back. */
TEST_WITHIN(restarts_under_load_reset_nothing, 90)
{
	struct shared *shared = share();
	int fd, i, cpu, rounds = ktap_rounds(60), broken = 0;
	pid_t client, workers[2];

	begin(2);
	fd = listener();
	spawn(fd);
	worker(fd, 3, -1, shared, serve_by_epoll);
	for (cpu = 0; cpu < 2; cpu++)
		workers[cpu] = worker(fd, cpu + 1, -1, shared, own_and_sleep);
	client = fork();
	if (!client) {
		for (i = 0; !shared->go; i++) {
			pin(i & 1);
			cpu = connect_to(AF_INET, port_of(fd));
			if (cpu < 0 || answer_on(cpu) < 0)
				shared->bound[60]++;
			shared->bound[61]++;
		}
		_exit(0);
	}
	for (i = 0; i < rounds; i++) {
		end(workers[i & 1]);
		workers[i & 1] = worker(fd, (i & 1) + 1, -1, shared,
					own_and_sleep);
	}
	shared->go = 1;
	CHECK(ktap_child_fine(client));
	broken = shared->bound[60];
	NOTE("%d connections, %d restarts", shared->bound[61], rounds);
	CHECK_EQ(broken, 0);
	CHECK(shared->bound[61] > 0);
}
