// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=240 modules=fastsocket variants=patched,patched-debug
 *
 * Tables of established connections: where a connection stands, that every core
 * and every list finds it, TIME-WAIT, and that no tuple is there twice.
 */
#include "est.h"

#include <net/if.h>

static const int families[] = { AF_INET, AF_INET6 };

#define FOR_EACH_FAMILY(family)						\
	for (int at_ = 0, family; at_ < 2 && (family = families[at_], 1); at_++)

TEST(off_until_switched_on)
{
	int listening = listener(), client, server;

	CHECK_EQ(ktap_read_number(EST_SWITCH), 0);
	est_begin(0, 1);
	open_pair(listening, AF_INET, &client, &server);
	CHECK(says(client, server));
	CHECK_EQ(est_stat(ALL_CPUS, EST_INSERT), 0);
	CHECK_EQ(est_stat(ALL_CPUS, EST_LOCAL), 0);
	CHECK_EQ(est_stat(ALL_CPUS, EST_GLOBAL), 0);
	drop(client);
}

TEST(switch_takes_0_and_1_only)
{
	est_begin(1, 0);
	CHECK(!ktap_write(EST_SWITCH, "2") && errno == EINVAL);
	CHECK(!ktap_write(EST_SWITCH, "-1"));
	CHECK(!ktap_write(EST_SWITCH, "on"));
	CHECK_EQ(ktap_read_number(EST_SWITCH), 1);
	set_switch(EST_SWITCH, 0);
}

/* Packets of a connection that stays on a core are found there, all of them. */
TEST(what_stays_on_a_core_is_found_there)
{
	FOR_EACH_FAMILY(family) {
		for (int cpu = 0; cpu < 2; cpu++) {
			int listening = listener_of(family, 16), client, server;

			est_begin(1, 1);
			pin(cpu);
			open_pair(listening, family, &client, &server);
			for (int i = 0; i < 20; i++) {
				CHECK(says(client, server));
				CHECK(says(server, client));
			}
			/* Both ends, the client's by its port */
			CHECK_EQ(port_of(client) % 2, cpu);
			CHECK_EQ(est_stat(cpu, EST_INSERT), 2);
			CHECK(est_stat(cpu, EST_LOCAL) >= 40);
			CHECK_EQ(est_stat(ALL_CPUS, EST_GLOBAL), 0);
			CHECK_EQ(est_stat(ALL_CPUS, EST_REMOTE), 0);
			CHECK_EQ(est_stat(!cpu, EST_LOCAL), 0);
			drop(client);
			close(server);
			close(listening);
		}
	}
}

/* Nobody knows where packets for it will arrive. */
TEST(an_opened_connection_without_rfd_stands_in_the_table_of_all)
{
	int listening = listener(), client, server;

	est_begin(1, 0);
	open_pair(listening, AF_INET, &client, &server);
	CHECK_EQ(est_stat(ALL_CPUS, EST_INSERT), 1);
	est_reset();
	CHECK(says(server, client));
	CHECK(est_stat(0, EST_GLOBAL) >= 1);
	drop(client);
}

/* The first packet on another core finds it, later ones at once. */
TEST(a_packet_on_another_core_finds_its_connection)
{
	FOR_EACH_FAMILY(family) {
		int listening = listener_of(family, 16), client, server;

		est_begin(1, 0);
		open_pair(listening, family, &client, &server);
		CHECK(says(client, server));
		pin(1);
		est_reset();
		CHECK(says(client, server));
		CHECK_EQ(est_stat(1, EST_REMOTE), 1);
		CHECK(says(client, server));
		CHECK(says(client, server));
		CHECK_EQ(est_stat(ALL_CPUS, EST_REMOTE), 1);
		CHECK(est_stat(1, EST_GLOBAL) >= 2);
		pin(0);
		CHECK(says(client, server));
		CHECK_EQ(est_stat(ALL_CPUS, EST_REMOTE), 1);
		CHECK_EQ(in_proc(table_of(family), 0, port_of(client),
				 ESTABLISHED), 1);
		drop(client);
		CHECK(!says(server, server));
		close(server);
		close(listening);
	}
}

/* An end may be closed on any core: it is gone from whichever table. */
TEST(closing_elsewhere_takes_it_out)
{
	int listening = listener(), client, server, port;

	est_begin(1, 1);
	open_pair(listening, AF_INET, &client, &server);
	port = port_of(client);
	pin(1);
	drop(client);
	close(server);
	CHECK_EQ(in_proc(table_of(AF_INET), port, 0, ESTABLISHED), 0);
	CHECK_EQ(in_proc(table_of(AF_INET), 0, port, ESTABLISHED), 0);
	CHECK(WAIT_FOR(!in_diag(0, port, ESTABLISHED), 5));
}

#define MANY	60

/*
 * A listener whose port no TIME-WAIT has: that of an earlier connection may,
 * as the port of its other end.
 */
static int listener_of_new_port(void)
{
	int fd = listener_of(AF_INET, 256), port = port_of(fd), next;

	while (waiting(AF_INET, port, 0) + waiting(AF_INET, 0, port)) {
		next = listener_of(AF_INET, 256);
		close(fd);
		fd = next;
		port = port_of(fd);
	}
	return fd;
}

/* Lists show what is on any core, once, and TIME-WAIT. */
TEST_WITHIN(lists_show_all, 90)
{
	int client[MANY], server[MANY], i, port;
	int listening;

	est_begin(1, 1);
	listening = listener_of_new_port();
	port = port_of(listening);
	for (i = 0; i < MANY; i++) {
		pin(i % 2);
		open_pair(listening, AF_INET, &client[i], &server[i]);
	}
	CHECK_EQ(est_stat(ALL_CPUS, EST_INSERT), 2 * MANY);
	CHECK_EQ(in_proc(table_of(AF_INET), port, 0, ESTABLISHED), MANY);
	CHECK_EQ(in_proc(table_of(AF_INET), 0, port, ESTABLISHED), MANY);
	CHECK_EQ(in_diag(port, 0, ESTABLISHED), MANY);
	CHECK_EQ(in_diag(0, port, ESTABLISHED), MANY);
	for (i = 0; i < MANY; i++) {
		pin(i % 2);
		if (i % 4 < 2)
			close_in_order(server[i], client[i]);
		else
			close_in_order(client[i], server[i]);
	}
	CHECK(WAIT_FOR(waiting(AF_INET, port, 0) +
		       waiting(AF_INET, 0, port) == MANY, 5));
	CHECK_EQ(in_diag(port, 0, TIME_WAIT) + in_diag(0, port, TIME_WAIT),
		 MANY);
	CHECK_EQ(in_diag(port, 0, ESTABLISHED), 0);
	CHECK_EQ(in_proc(table_of(AF_INET), 0, port, ESTABLISHED), 0);
}

/* Switching off moves all of it, and later ones stay out. */
TEST(switching_off_keeps_what_there_is)
{
	int client[MANY], server[MANY], i, port;
	int listening;

	est_begin(1, 1);
	listening = listener_of_new_port();
	port = port_of(listening);
	for (i = 0; i < MANY; i++) {
		pin(i % 2);
		open_pair(listening, AF_INET, &client[i], &server[i]);
	}
	for (i = 0; i < MANY; i += 3)
		close_in_order(server[i], client[i]);
	set_switch(EST_SWITCH, 0);
	est_reset();
	for (i = 0; i < MANY; i++) {
		if (i % 3 == 0)
			continue;
		pin(i % 2);
		CHECK(says(client[i], server[i]));
		CHECK(says(server[i], client[i]));
	}
	CHECK_EQ(est_stat(ALL_CPUS, EST_LOCAL), 0);
	CHECK_EQ(est_stat(ALL_CPUS, EST_REMOTE), 0);
	CHECK_EQ(in_proc(table_of(AF_INET), port, 0, ESTABLISHED),
		 MANY - MANY / 3);
	CHECK_EQ(in_diag(0, port, ESTABLISHED), MANY - MANY / 3);
	CHECK_EQ(waiting(AF_INET, port, 0), MANY / 3);
	for (i = 0; i < MANY; i++)
		if (i % 3)
			drop(client[i]);
	CHECK(WAIT_FOR(!in_diag(port, 0, ESTABLISHED), 5));
	CHECK_EQ(est_stat(ALL_CPUS, EST_INSERT), 0);
}

/* So does taking the module away. */
TEST(unloading_keeps_what_there_is)
{
	int listening, client, server, port;

	est_begin(1, 1);
	listening = listener();
	pin(1);
	open_pair(listening, AF_INET, &client, &server);
	port = port_of(client);
	CHECK_EQ(est_stat(1, EST_INSERT), 2);
	NEED(WAIT_FOR(module_unload(), 10));
	for (int cpu = 0; cpu < 2; cpu++) {
		pin(cpu);
		CHECK(says(client, server));
		CHECK(says(server, client));
	}
	CHECK_EQ(in_proc(table_of(AF_INET), port, 0, ESTABLISHED), 1);
	NEED(module_load("enable_local_established=1"));
	CHECK_EQ(ktap_read_number(EST_SWITCH), 1);
	CHECK(says(client, server));
	close_in_order(client, server);
	CHECK(WAIT_FOR(waiting(AF_INET, port, 0) == 1, 5));
	NEED(module_unload());
	CHECK(!module_load("enable_local_established=2") && errno == EINVAL);
	NEED(module_load(""));
	CHECK_EQ(ktap_read_number(EST_SWITCH), 0);
	CHECK_EQ(waiting(AF_INET, port, 0), 1);
}

/* --- TIME-WAIT --- */

/* A SYN finds TIME-WAIT on whatever core, and takes its place. */
TEST(a_syn_reuses_time_wait_of_another_core)
{
	FOR_EACH_FAMILY(family) {
		int listening = listener_of(family, 16), port = port_of(listening);
		int client = bound_socket(family, 0), local = port_of(client);
		int server;

		est_begin(1, 1);
		pin(local % 2);
		NEED_EQ(try_connect(client, family, port), 0);
		server = taken_from(listening);
		close_in_order(server, client);
		NEED(WAIT_FOR(waiting(family, port, local) == 1, 5));

		set_switch(RFD_SWITCH, 0);
		pin(!(local % 2));
		client = bound_socket(family, local);
		CHECK_EQ(try_connect(client, family, port), 0);
		server = taken_from(listening);
		CHECK(says(client, server));
		CHECK(says(server, client));
		CHECK_EQ(waiting(family, port, local), 0);
		CHECK_EQ(in_proc(table_of(family), port, local, ESTABLISHED), 1);
		drop(client);
		close(server);
		close(listening);
	}
}

/* connect() takes the place of an own TIME-WAIT, here with bind() before. */
TEST(connect_reuses_time_wait_of_another_core)
{
	FOR_EACH_FAMILY(family) {
		int listening = listener_of(family, 16), port = port_of(listening);
		int client = bound_socket(family, 0), local = port_of(client);
		int server;

		est_begin(1, 1);
		pin(local % 2);
		NEED_EQ(try_connect(client, family, port), 0);
		server = taken_from(listening);
		close_in_order(client, server);
		NEED(WAIT_FOR(waiting(family, local, port) == 1, 5));

		pin(!(local % 2));
		client = bound_socket(family, local);
		CHECK_EQ(try_connect(client, family, port), 0);
		server = taken_from(listening);
		CHECK(says(client, server));
		CHECK(says(server, client));
		CHECK_EQ(waiting(family, local, port), 0);
		CHECK_EQ(in_proc(table_of(family), local, port, ESTABLISHED), 1);
		drop(client);
		close(server);
		close(listening);
	}
}

/* The search for a port does so when it may: then the one port serves again. */
TEST_WITHIN(the_search_for_a_port_reuses_time_wait, 60)
{
	FOR_EACH_FAMILY(family) {
		int listening = listener_of(family, 16), port = port_of(listening);
		int client, server, again;

		est_begin(1, 1);
		NEED(ktap_write(TW_REUSE, "1"));
		/* one port for each CPU */
		NEED(ktap_write(PORTS, "42000 42001"));
		client = connect_to(family, port);
		NEED_EQ(port_of(client), 42000);
		server = taken_from(listening);
		close_in_order(client, server);
		NEED(WAIT_FOR(waiting(family, 42000, port) == 1, 5));

		/* Of the second one CPU's port is taken; the other core asks. */
		pin(1);
		client = connect_to(family, port);
		NEED_EQ(port_of(client), 42001);
		server = taken_from(listening);
		again = socket(family, SOCK_STREAM, 0);
		NEED(again >= 0);
		CHECK(WAIT_FOR(!try_connect(again, family, port), 20));
		CHECK_EQ(port_of(again), 42000);
		CHECK(says(again, taken_from(listening)));
		CHECK_EQ(waiting(family, 42000, port), 0);
		drop(again);
		drop(client);
		close(server);
		close(listening);
		NEED(ktap_write(PORTS, "32768 61000"));
		NEED(ktap_write(TW_REUSE, "0"));
	}
}

/* --- no tuple twice --- */

struct race {
	pthread_barrier_t start;
	int family, port, local, error[2];
};

struct runner {
	struct race *race;
	int cpu;
};

static void *run(void *argument)
{
	const struct runner *runner = argument;
	struct race *race = runner->race;
	int fd;

	pin(runner->cpu);
	fd = bound_socket(race->family, race->local);
	pthread_barrier_wait(&race->start);
	race->error[runner->cpu] = try_connect(fd, race->family, race->port);
	pthread_barrier_wait(&race->start);
	drop(fd);
	return NULL;
}

/* Of two that open one tuple at the same time one may, on any pair of tables. */
TEST_WITHIN(of_two_that_open_a_tuple_one_does, 90)
{
	int rounds = 120, both = 0, none = 0, i, cpu, one;
	int listening, seed;
	pthread_t thread[2];
	struct runner runner[2];
	struct race race;

	for (int rfd = 0; rfd < 2; rfd++) {
		FOR_EACH_FAMILY(family) {
			est_begin(1, rfd);
			listening = listener_of(family, 64);
			seed = bound_socket(family, 0);
			race = (struct race){ .family = family,
					      .port = port_of(listening),
					      .local = port_of(seed) };
			pthread_barrier_init(&race.start, NULL, 2);
			for (i = 0; i < rounds / 4; i++) {
				for (cpu = 0; cpu < 2; cpu++) {
					runner[cpu].race = &race;
					runner[cpu].cpu = cpu;
					NEED(!pthread_create(&thread[cpu], NULL,
							run, &runner[cpu]));
				}
				for (cpu = 0; cpu < 2; cpu++)
					pthread_join(thread[cpu], NULL);
				both += !race.error[0] && !race.error[1];
				none += race.error[0] && race.error[1];
				for (cpu = 0; cpu < 2; cpu++)
					if (race.error[cpu])
						NEED_EQ(race.error[cpu],
							EADDRNOTAVAIL);
				/* Of those who were, nobody remains. */
				NEED(fcntl(listening, F_SETFL,
					   O_RDWR | O_NONBLOCK) == 0);
				while ((one = accept(listening, NULL, NULL)) >= 0)
					close(one);
			}
			close(seed);
			close(listening);
		}
	}
	CHECK_EQ(both, 0);
	CHECK_EQ(none, 0);
}

/* One after the other, on any core: the second one is told. */
TEST(a_tuple_that_is_there_is_refused)
{
	FOR_EACH_FAMILY(family) {
		int listening = listener_of(family, 16), port = port_of(listening);

		for (int rfd = 0; rfd < 2; rfd++) {
			for (int cpu = 0; cpu < 2; cpu++) {
				int first = bound_socket(family, 0);
				int second = bound_socket(family,
							  port_of(first));
				int server;

				est_begin(1, rfd);
				NEED_EQ(try_connect(first, family, port), 0);
				/* Before the reset: it may pass the last ACK. */
				server = taken_from(listening);
				pin(cpu);
				CHECK_EQ(try_connect(second, family, port),
					 EADDRNOTAVAIL);
				close(second);
				drop(first);
				close(server);
			}
		}
		close(listening);
	}
}

/* --- what goes away --- */

/* A namespace takes its TIME-WAIT along, from the tables of cores as well. */
TEST(a_namespace_that_ends_leaves_nothing)
{
	int before, i, status;
	pid_t child;

	est_begin(1, 1);
	before = number_of_time_wait();
	child = fork();
	NEED(child >= 0);
	if (!child) {
		int listening, client, server;

		NEED(unshare(CLONE_NEWNET) == 0);
		set_loopback_up();
		listening = listener();
		for (i = 0; i < 20; i++) {
			pin(i % 2);
			open_pair(listening, AF_INET, &client, &server);
			close_in_order(server, client);
		}
		NEED(WAIT_FOR(waiting(AF_INET, port_of(listening), 0) == 20, 5));
		_exit(0);
	}
	NEED(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	CHECK(est_stat(ALL_CPUS, EST_INSERT) >= 40);
	CHECK(WAIT_FOR(number_of_time_wait() <= before, 20));
}

/* A core goes: what it has is found. */
TEST(a_cpu_that_goes_leaves_its_connections)
{
	static const char path[] = "/sys/devices/system/cpu/cpu1/online";
	int listening = listener(), client, server;

	est_begin(1, 1);
	pin(1);
	open_pair(listening, AF_INET, &client, &server);
	CHECK_EQ(est_stat(1, EST_INSERT), 2);
	pin(0);
	if (!ktap_write(path, "0"))
		SKIP("CPU 1 stays");
	est_reset();
	CHECK(says(client, server));
	CHECK(says(server, client));
	CHECK_EQ(est_stat(0, EST_REMOTE), 2);
	NEED(ktap_write(path, "1"));
	pin(1);
	CHECK(says(client, server));
	CHECK(says(server, client));
	CHECK_EQ(est_stat(ALL_CPUS, EST_REMOTE), 2);
	drop(client);
}
